"What files mean, decided by others: hand-written bytes, tifffile, OpenCV, the arithmetic of CIE and ICC; and what a result keeps of them"
import io,re,struct,sys,warnings,zlib
import numpy as np, pytest
from PIL import Image, ImageCms
from skimage import data
from fastai_colorize.base.exif import read_tags, write_tags
from fastai_colorize.base.metadata import Metadata
from fastai_colorize.base.photos import *
from fastai_colorize.base.photos import photo_note
from fastai_colorize.base.usable import check_photos

tifffile = pytest.importorskip('tifffile')
CAT = np.asarray(Image.fromarray(data.chelsea()).resize((61,40), Image.Resampling.BOX))
GREY = CAT[...,1]

def opened(f): return open_photo(f).rgb
def off(a, b): return np.abs(a.astype(int) - (b if b.ndim == 3 else b[...,None])).max()

def deep(a, dtype):
    dtype = np.dtype(dtype)
    return (a/255).astype(dtype) if dtype.kind == 'f' else (a.astype(float)*np.iinfo(dtype).max/255).round().astype(dtype)

def tiff(w, h, pixels, order='<', **tags):
    "One strip, by hand"
    tags = {256:w, 257:h, 258:8, 259:1, 262:1, 273:8, 277:1, 278:h, 279:len(pixels)} | {int(k[1:]): v for k,v in tags.items()}
    as_tag = lambda v: (4, len(v), struct.pack(f'{order}{len(v)}I', *v)) if isinstance(v, tuple) else (4, 1, struct.pack(order + 'I', v))
    return b''.join(write_tags(order, {k: as_tag(v) for k,v in tags.items()}, pixels))

def png(rows, w, bits, kind, *chunks):
    "By hand"
    chunk = lambda k,d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    parts = ((b'IHDR', struct.pack('>IIBBBBB', w, len(rows), bits, kind, 0, 0, 0)), *chunks, (b'IDAT', zlib.compress(b''.join(b'\0' + r for r in rows))), (b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*o) for o in parts)

# ---- TIFF: right, or refused

KINDS = [(dtype, photometric, kw) for dtype in 'u1 u2 u4 i1 i2 i4 f2 f4 f8'.split() for photometric in ('minisblack', 'miniswhite', 'rgb', 'planes', 'separated', 'ink planes', 'rgba', 'la')
         for kw in ({}, {'byteorder':'>'}, {'compression':'zlib'}, {'compression':'zlib', 'predictor':True}, {'tile':(16,16)}, {'bigtiff':True}) if not (np.dtype(dtype).kind == 'f' and 'predictor' in kw)]

@pytest.mark.parametrize('dtype,photometric,kw', KINDS, ids=lambda o: o if isinstance(o, str) else '-'.join(o) or 'plain')
def test_every_kind_is_right_or_refused(tmp_path, dtype, photometric, kw):
    "As tifffile writes them: never a wrong picture"
    a,want = {'rgb':(CAT, CAT), 'planes':(CAT.transpose(2,0,1), CAT), 'rgba':(np.dstack([CAT, np.full_like(GREY, 200)]), CAT), 'la':(np.dstack([GREY, np.full_like(GREY, 200)]), GREY),
              'separated':(np.dstack([255 - CAT, 0*GREY]), CAT), 'ink planes':(np.dstack([255 - CAT, 0*GREY]).transpose(2,0,1), CAT)}.get(photometric, (GREY, GREY))
    a = deep(a, dtype)
    if photometric == 'miniswhite': a = ((np.iinfo(dtype).max if a.dtype.kind != 'f' else 1) - a).astype(dtype)
    kw = {**kw, **({'planarconfig':'separate'} if 'planes' in photometric else {'planarconfig':'contig', 'extrasamples':['unassalpha']} if photometric in ('rgba', 'la') else {})}
    kw['photometric'] = {'planes':'rgb', 'ink planes':'separated', 'rgba':'rgb', 'la':'minisblack'}.get(photometric, photometric)
    try: tifffile.imwrite(tmp_path/'a.tif', a, **kw)
    except (ValueError, TypeError, KeyError) as e: pytest.skip(str(e))
    try: p = open_photo(tmp_path/'a.tif')
    except PhotoError as e:
        assert dtype not in ('u1', 'u2') or photometric in ('la', 'ink planes', 'separated') or 'broken' not in e.reason, e
        return
    assert off(p.rgb, want) <= 1 and (p.alpha is not None) == (photometric in ('rgba', 'la'))

@pytest.mark.parametrize('dtype', ['u1', 'u2'])
@pytest.mark.parametrize('photometric', ['minisblack', 'miniswhite', 'rgb', 'planes'])
def test_what_scanners_write_is_read(tmp_path, dtype, photometric):
    a = deep(CAT if photometric in ('rgb', 'planes') else GREY, dtype)
    if photometric == 'miniswhite': a = np.iinfo(dtype).max - a
    tifffile.imwrite(tmp_path/'a.tif', a.transpose(2,0,1) if photometric == 'planes' else a, photometric='rgb' if photometric == 'planes' else photometric, **({'planarconfig':'separate'} if photometric == 'planes' else {}))
    assert off(opened(tmp_path/'a.tif'), CAT if a.ndim == 3 else GREY) <= 1

@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('white', (0, 1), ids=['white is zero', 'black is zero'])
@pytest.mark.parametrize('bits', (1, 2, 4, 8, 12, 16))
def test_packed_bits(tmp_path, bits, white, order):
    "Written bit by bit; 16 pixels, so that each row ends with a byte"
    v = np.arange(64).reshape(4,16)*(2**bits - 1)//63
    stored = v if white else 2**bits - 1 - v
    pack = lambda row: int(''.join(f'{o:0{bits}b}' for o in row), 2).to_bytes(2*bits, 'big')
    pixels = b''.join(map(pack, stored.tolist())) if bits < 16 else stored.astype(order + 'u2').tobytes()
    (tmp_path/'a.tif').write_bytes(tiff(16, 4, pixels, order, _258=bits, _262=white))
    try: rgb = opened(tmp_path/'a.tif')
    except PhotoError as e:
        assert bits == 12 and 'kind' in e.reason or (bits, order, white) == (16, '>', 0), e.reason
        return
    assert off(rgb, v*255/(2**bits - 1)) <= .5

@pytest.mark.parametrize('o', range(1, 9))
@pytest.mark.parametrize('kind', ['grey', '16 bits', 'rgba', 'cmyk'])
@pytest.mark.parametrize('how', ['path', 'pil'])
def test_one_strip_turned(tmp_path, o, kind, how):
    "OpenCV turns by itself where it can: here by numpy, from the definition of the tag (row 0 and column 0 of the file lie at …)"
    a = {'grey':GREY, '16 bits':deep(GREY, 'u2'), 'rgba':np.dstack([CAT, 255 - GREY]), 'cmyk':np.dstack([255 - CAT, 0*GREY])}[kind]
    stored = {1:a, 2:a[:,::-1], 3:a[::-1,::-1], 4:a[::-1], 5:a.swapaxes(0,1), 6:np.rot90(a, 1), 7:np.rot90(a, 2).swapaxes(0,1), 8:np.rot90(a, -1)}[o]
    tifffile.imwrite(tmp_path/'a.tif', np.ascontiguousarray(stored), photometric={'rgba':'rgb', 'cmyk':'separated'}.get(kind, 'minisblack'), extratags=[(274, 'H', 1, o, True)], **({'extrasamples':['unassalpha']} if kind == 'rgba' else {}))
    if how == 'path': p = open_photo(tmp_path/'a.tif')
    else:
        with Image.open(tmp_path/'a.tif') as im:
            p = open_photo(im)
            assert im.filename == str(tmp_path/'a.tif')
    assert off(p.rgb, GREY if kind in ('grey', '16 bits') else CAT) <= 1 and photo_size(tmp_path/'a.tif') == p.size == (61,40)
    if kind == 'rgba': assert (p.alpha == 255 - GREY).all()

def test_turned_tiff_that_pillow_decoded_before(tmp_path):
    tifffile.imwrite(tmp_path/'a.tif', np.ascontiguousarray(np.rot90(GREY)), photometric='minisblack', extratags=[(274, 'H', 1, 6, True)])
    with Image.open(tmp_path/'a.tif') as im:
        im.load()
        if np.array_equal(np.asarray(im), GREY): return                       # a Pillow that does it right
        with pytest.raises(PhotoError, match='path'): open_photo(im)

def test_unknown_inks_are_refused(tmp_path):
    (tmp_path/'a.tif').write_bytes(tiff(2, 1, bytes(8), _258=(8, 8, 8, 8), _262=5, _277=4, _332=2))
    with pytest.raises(PhotoError, match='CMYK'): open_photo(tmp_path/'a.tif')

# ---- PNG: transparency, light

@pytest.mark.parametrize('bits', (1, 2, 4, 8, 16))
def test_transparent_grey(tmp_path, bits):
    v = np.arange(64).reshape(4,16)*(2**bits - 1)//63
    key = int(v[2,5])
    pack = lambda row: int(''.join(f'{o:0{bits}b}' for o in row), 2).to_bytes(2*bits, 'big')
    (tmp_path/'a.png').write_bytes(png([pack(r) for r in v.tolist()], 16, bits, 0, (b'tRNS', struct.pack('>H', key))))
    p = open_photo(tmp_path/'a.png')
    assert ((p.alpha == 0) == (v == key)).all() and off(p.rgb, v*255/(2**bits - 1)) <= .5

@pytest.mark.parametrize('bits', (8, 16))
def test_transparent_colour(tmp_path, bits):
    "Neighbours of the colour stay visible, in 16 bits too; OpenCV reads the same numbers"
    v = np.random.default_rng(0).integers(0, 4, (6,8,3))*(1 if bits == 8 else 255)
    (tmp_path/'a.png').write_bytes(png([r.astype(f'>u{bits//8}').tobytes() for r in v], 8, bits, 2, (b'tRNS', struct.pack('>3H', *v[3,3]))))
    p = open_photo(tmp_path/'a.png')
    assert ((p.alpha == 0) == (v == v[3,3]).all(2)).all() and 0 < (p.alpha == 0).sum() < 48
    cv2 = pytest.importorskip('cv2')
    assert (cv2.imread(str(tmp_path/'a.png'), cv2.IMREAD_UNCHANGED)[...,2::-1] == v).all()

def srgb(light): return np.where(light <= .0031308, light*12.92, 1.055*np.maximum(light, 0)**(1/2.4) - .055)

@pytest.mark.parametrize('bits,kind', [(8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (8, 6)])
@pytest.mark.parametrize('gamma', (1., .5555))
def test_gamma(tmp_path, bits, kind, gamma):
    channels = {0:1, 2:3, 4:2, 6:4}[kind]
    v = np.random.default_rng(1).integers(0, 2**bits, (5,7,channels))
    (tmp_path/'a.png').write_bytes(png([r.astype(f'>u{bits//8}').tobytes() for r in v], 7, bits, kind, (b'gAMA', struct.pack('>I', round(gamma*1e5)))))
    want = srgb((v/(2**bits - 1))**(1/gamma))*255
    p = open_photo(tmp_path/'a.png')
    colours = 1 if kind in (0, 4) else 3
    assert off(p.rgb, want[...,:colours]) <= .51
    if channels in (2, 4): assert (p.alpha == v[...,-1]).all()

def test_gamma_that_changes_nothing(tmp_path):
    rows = [r.tobytes() for r in GREY]
    for i,chunks in enumerate(([(b'gAMA', struct.pack('>I', 45455))], [(b'gAMA', struct.pack('>I', 100000)), (b'sRGB', b'\0')], [(b'gAMA', struct.pack('>I', 0))],
                               [(b'gAMA', struct.pack('>I', 45455)), (b'cHRM', struct.pack('>8I', 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))], [(b'cHRM', bytes(32))])):
        (tmp_path/f'{i}.png').write_bytes(png(rows, 61, 8, 0, *chunks))
        assert (opened(tmp_path/f'{i}.png') == GREY[...,None]).all(), i

def test_primaries_of_another_screen(tmp_path):
    "Display P3 by its chunk and by its ICC profile: two ways of saying the same"
    xy = 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000
    (tmp_path/'a.png').write_bytes(png([r.tobytes() for r in CAT], 61, 8, 2, (b'gAMA', struct.pack('>I', 45455)), (b'cHRM', struct.pack('>8I', *xy))))
    light = np.where(CAT/255 <= .04045, CAT/255/12.92, ((CAT/255 + .055)/1.055)**2.4)
    want = np.clip(srgb(light @ np.array([[1.2249, -.2247, 0], [-.0420, 1.0419, 0], [-.0197, -.0786, 1.0979]]).T), 0, 1)*255    # CSS Color 4
    assert off(opened(tmp_path/'a.png'), want) <= 1.1 and off(opened(tmp_path/'a.png'), CAT) > 10

def test_cicp(tmp_path):
    "sRGB is read, and stands above gAMA; HDR and other primaries are refused"
    rows = [r.tobytes() for r in CAT]
    gamma = b'gAMA', struct.pack('>I', 100000)
    (tmp_path/'a.png').write_bytes(png(rows, 61, 8, 2, (b'cICP', bytes([1, 13, 0, 1])), gamma))
    assert (opened(tmp_path/'a.png') == CAT).all()
    for o in ((9, 16), (9, 18), (12, 13)):
        (tmp_path/'b.png').write_bytes(png(rows, 61, 8, 2, (b'cICP', bytes([*o, 0, 1]))))
        with pytest.raises(PhotoError, match='save it as sRGB'): open_photo(tmp_path/'b.png')

def test_profile_is_judged_by_its_numbers(tmp_path):
    "It has the name of sRGB, and red and blue exchanged"
    true = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    liar = true.replace(b'rXYZ', b'tmp ').replace(b'bXYZ', b'rXYZ').replace(b'tmp ', b'bXYZ')
    other = true.replace('sRGB'.encode('utf-16-be'), 'oops'.encode('utf-16-be'))
    for name,icc in (('true', true), ('liar', liar), ('other', other)): Image.fromarray(CAT).save(tmp_path/f'{name}.png', icc_profile=icc)
    assert off(opened(tmp_path/'liar.png'), CAT[...,::-1]) <= 2
    assert (opened(tmp_path/'true.png') == CAT).all() and (opened(tmp_path/'other.png') == CAT).all()

# ---- what is under full transparency

def hidden_pair(rng):
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:,:25] = 0; alpha[10:14,40:60] = 0; alpha[20:,50] = 7
    a,b = np.dstack([CAT, alpha]),np.dstack([CAT, alpha])
    b[alpha == 0,:3] = rng.integers(0, 256, ((alpha == 0).sum(),3))
    a[alpha == 0,:3] = 0
    return a,b,alpha

def test_hidden_pixels_have_no_part(tmp_path):
    a,b,alpha = hidden_pair(np.random.default_rng(0))
    for size in ((61,40), (32,32), (16,48)):
        small = lambda im: im.resize(size, Image.Resampling.BICUBIC)
        assert (open_photo(a).visible(small) == open_photo(b).visible(small)).all()
    flat = np.dstack([np.full_like(CAT, 90), alpha])
    flat[alpha == 0,:3] = 255
    assert off(open_photo(flat).visible(lambda im: im.resize((32,32))), np.full((32,32), 90)) <= 2         # nothing of the white comes through
    assert not open_photo(np.dstack([CAT, 0*alpha])).visible(lambda im: im).any()
    part = np.dstack([CAT, np.full_like(alpha, 3)])
    assert (open_photo(part).visible(lambda im: im) == CAT).all()                        # barely visible is visible

def test_hidden_pixels_do_not_colour(tmp_path):
    from fastai_colorize.use.colorizer import Colorizer
    from fastai_colorize.data.cache import LoadPhoto
    a,b,alpha = hidden_pair(np.random.default_rng(0))
    c = Colorizer.from_pretrained(device='cpu')
    one,two = (np.asarray(c.colorize(o, render_size=64)) for o in (a, b))
    assert (one[alpha > 0] == two[alpha > 0]).all() and (one[...,3] == alpha).all()
    for fit in ('stretch', 'crop'): assert (LoadPhoto(32, fit=fit).encodes(a) == LoadPhoto(32, fit=fit).encodes(b)).all()

# ---- more, or less, than one picture

def test_pages_are_said(tmp_path):
    page = Image.fromarray(GREY)
    page.save(tmp_path/'three.tif', save_all=True, append_images=[page, page])
    page.save(tmp_path/'one.tif')
    for f in ('a.gif', 'a.webp', 'a.png'): page.save(tmp_path/f, save_all=True, append_images=[Image.fromarray(255 - GREY)])
    tifffile.imwrite(tmp_path/'pyramid.tif', GREY, photometric='minisblack')
    tifffile.imwrite(tmp_path/'pyramid.tif', GREY[::2,::2], photometric='minisblack', subfiletype=1, append=True)
    notes = {f.name: open_photo(f).note for f in tmp_path.iterdir()}
    assert notes == {'three.tif':'page 1 of 3', 'one.tif':'', 'a.gif':'frame 1 of 2', 'a.webp':'frame 1 of 2', 'a.png':'frame 1 of 2', 'pyramid.tif':''}
    assert (opened(tmp_path/'three.tif') == GREY[...,None]).all()

@pytest.mark.parametrize('cut', [0, 4, 12])
def test_a_broken_second_page_does_not_turn_the_first(tmp_path, cut):
    "Pages are counted elsewhere: where one ends too early, Pillow has lost the orientation of the first"
    turned = np.ascontiguousarray(np.rot90(CAT))
    tifffile.imwrite(tmp_path/'a.tif', turned, photometric='rgb', extratags=[(274, 'H', 1, 6, True)])
    whole = (tmp_path/'a.tif').read_bytes()
    first, = struct.unpack('<I', whole[4:8])
    end = first + 2 + 12*int.from_bytes(whole[first:first+2], 'little')
    n = len(whole) + len(whole)%2
    second = struct.pack('<HHHII', 1, 258, 3, 1, 8) + bytes(4)               # a page without a size
    linked = (whole[:end] + struct.pack('<I', n) + whole[end+4:]).ljust(n, b'\0')
    (tmp_path/'b.tif').write_bytes(linked + second[:len(second) - cut])
    p = open_photo(tmp_path/'b.tif')
    assert p.size == photo_size(tmp_path/'b.tif') == (61,40) and (p.rgb == CAT).all()

def test_report_says_pages_and_losses(tmp_path, capsys):
    from fastai_colorize.use.colorizer import Colorizer
    import fastai_colorize.use.folders
    from fastai_colorize.use.folders import summary
    page = Image.fromarray(GREY)
    page.save(tmp_path/'three.tif', save_all=True, append_images=[page, page])
    page.save(tmp_path/'one.png')
    report = Colorizer.from_pretrained(device='cpu').colorize_files([tmp_path/'three.tif', tmp_path/'one.png'], tmp_path/'out', render_size=32)
    assert report.note.tolist() == ['page 1 of 3', ''] and (report.reason == '').all()
    assert summary(report, 'out') == 0 and 'three.tif: page 1 of 3' in capsys.readouterr().out
    again = Colorizer.from_pretrained(device='cpu').colorize_files(tmp_path/'three.tif', tmp_path/'out', render_size=32)
    assert again.note.tolist() == ['']

def raws(d):
    tifffile.imwrite(d/'thumbnail.dng', GREY, photometric='minisblack', subfiletype=1)
    tifffile.imwrite(d/'version.dng', GREY, photometric='minisblack', extratags=[(50706, 'B', 4, (1, 4, 0, 0), True)])
    (d/'mosaic.tif').write_bytes(tiff(4, 4, bytes(16), _262=1, _330=8 + 16 + 2 + 12*10 + 4) + struct.pack('<HHHII', 1, 262, 4, 1, 32803) + bytes(4))
    heads = {'a.raf':b'FUJIFILMCCD-RAW 0201', 'a.cr2':b'II*\0\x10\0\0\0CR\2\0', 'a.cr3':b'\0\0\0\x18ftypcrx \0\0\0\1', 'a.orf':b'IIRO\x08\0\0\0', 'a.rw2':b'IIU\0\x18\0\0\0', 'a.x3f':b'FOVb'}
    for n,head in heads.items(): (d/n).write_bytes(head + bytes(200))

def test_raw_files_are_refused(tmp_path):
    raws(tmp_path)
    for f in tmp_path.iterdir():
        for o in (open_photo, photo_size):
            with pytest.raises(PhotoError, match='raw file.*[Dd]evelop'): o(f)
    assert check_photos(sorted(tmp_path.iterdir())).reason.str.contains('raw').all()

def test_heic(tmp_path, monkeypatch):
    heif = pytest.importorskip('pillow_heif')
    heif.register_heif_opener()
    exif = Image.Exif(); exif[0x112],exif[0x13b] = 6,'me'
    Image.fromarray(np.ascontiguousarray(np.rot90(data.chelsea()))).save(tmp_path/'a.heic', exif=exif.tobytes(), quality=95)
    p = open_photo(tmp_path/'a.heic')
    assert p.size == (451,300) and photo_size(tmp_path/'a.heic') == p.size and np.abs(p.rgb.astype(int) - data.chelsea()).mean() < 5
    assert read_tags(io.BytesIO(p.exif[6:]))[1][0x13b][2] == b'me\0'
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    with pytest.raises(PhotoError, match=r'pip install .fastai_colorize\[heic\]'): open_photo(tmp_path/'a.heic')

# ---- what a result keeps

ARTIST = 'Jörg Müßig, 写真家'.encode() + b'\0'
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:creator="me"><xmp:Thumbnails>/9j/4AAQ</xmp:Thumbnails></rdf:Description></x:xmpmeta>'
IPTC = b'\x1c\x02\x78\0\x04lake'

def exif_block(order='<'):
    two = struct.pack(order + 'H', 6)
    ratio = struct.pack(order + '2I', 300, 1)
    below = {0x9003:(2, 20, b'2020:02:02 02:02:02\0'), 0x9286:(7, 13, b'UNICODE\0\xe5\x86\x99zz'), 40961:(3, 1, two), 40962:(3, 1, two), 37500:(7, 20, b'notes\xff\xd8\xff\xe0 preview...')}
    tags = {0x112:(3, 1, two), 0x13b:(2, len(ARTIST), ARTIST), 282:(5, 1, ratio), 283:(5, 1, ratio), 296:(3, 1, struct.pack(order + 'H', 2)), 37724:(7, 16, b'GREY LAYERS HERE'),
            0x8769:(4, 1, below), 0x8825:(4, 1, {1:(2, 2, b'N\0')})}
    return b'Exif\0\0' + b''.join(write_tags(order, tags))

@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('source', ['jpg', 'png', 'webp'])
def test_exif_byte_for_byte(tmp_path, source, order):
    "Through every format: the artist in UTF-8 stays, what has become untrue goes"
    Image.fromarray(CAT).save(tmp_path/f'a.{source}', exif=exif_block(order))
    p = open_photo(tmp_path/f'a.{source}')
    for s in SAVES:
        f = save_photo(p.to_pil(), tmp_path/f'b{s}', exif=p.exif, meta=p.meta)
        block = f.read_bytes() if s in ('.tif', '.tiff') else Image.open(f).info['exif'].removeprefix(b'Exif\0\0')
        tags = read_tags(io.BytesIO(block))[1]
        assert tags[0x13b] == (2, len(ARTIST), ARTIST) and tags[0x8825][2] == {1:(2, 2, b'N\0')}, s
        assert tags[0x8769][2] == {0x9003:(2, 20, b'2020:02:02 02:02:02\0'), 0x9286:(7, 13, b'UNICODE\0\xe5\x86\x99zz')} and not {0x112, 37724} & set(tags)
        assert b'GREY LAYERS' not in f.read_bytes() and b'preview...' not in f.read_bytes()
        with tifffile.TiffFile(f) if s == '.tif' else Image.open(f) as im:
            if s == '.tif': assert (im.asarray() == p.rgb).all()

def test_tags_of_a_tiff_byte_for_byte(tmp_path):
    tifffile.imwrite(tmp_path/'a.tif', CAT, photometric='rgb', metadata=None, resolution=(300, 300), extratags=[(0x13b, 's', 0, ARTIST[:-1], True), (37724, 'B', 20, b'GREY LAYERS IN HERE!', True), (700, 'B', len(XMP), XMP, True), (33723, 'B', len(IPTC), IPTC, True)])
    p = open_photo(tmp_path/'a.tif')
    for s in SAVES:
        f = save_photo(p.to_pil(), tmp_path/f'b{s}', exif=p.exif, meta=p.meta)
        assert ARTIST in f.read_bytes() and b'GREY LAYERS' not in f.read_bytes() and (p.meta.iptc, p.meta.dpi) == (IPTC, (300, 300))
        q = open_photo(f)
        assert q.meta.xmp == p.meta.xmp and b'dc:creator="me"' in q.meta.xmp and b'Orientation' not in q.meta.xmp and b'/9j/' not in q.meta.xmp
        assert q.meta.iptc == (None if s == '.webp' else IPTC) and photo_note(p, f) == ('without its IPTC' if s == '.webp' else '')

@pytest.mark.parametrize('suffix', SAVES)
def test_metadata_beside_exif(tmp_path, suffix):
    Image.fromarray(CAT).save(tmp_path/'a.jpg', xmp=XMP, comment='grüße'.encode(), dpi=(600, 600))
    p = open_photo(tmp_path/'a.jpg')
    f = save_photo(p.to_pil(), tmp_path/f'b{suffix}', exif=p.exif, meta=p.meta)
    q = open_photo(f)
    assert b'dc:creator="me"' in q.meta.xmp and q.size == p.size
    if suffix != '.webp': assert np.abs(np.subtract(q.meta.dpi, 600)).max() < .1
    kept = q.meta.comment == 'grüße'.encode() or q.meta.text.get('Comment') == 'grüße'
    assert kept == (photo_note(p, f) == '') and kept == (suffix not in ('.webp', '.tif', '.tiff'))
    assert kept or 'comment' in photo_note(p, f)

def test_texts_of_a_png(tmp_path):
    (tmp_path/'a.png').write_bytes(png([r.tobytes() for r in GREY], 61, 8, 0, (b'tEXt', b'Title\0At the lake'), (b'iTXt', b'Author\0\0\0\0\0' + 'Jörg 写'.encode()), (b'pHYs', struct.pack('>IIB', 11811, 11811, 1))))
    p = open_photo(tmp_path/'a.png')
    q = open_photo(save_photo(p.to_pil(), tmp_path/'b.png', meta=p.meta))
    assert q.meta.text == p.meta.text == {'Title':'At the lake', 'Author':'Jörg 写'} and q.meta.dpi == p.meta.dpi
    assert photo_note(p, 'b.jpg') == 'without its texts'

def test_result_is_not_turned_twice(tmp_path):
    "The orientation stands in the XMP too"
    Image.fromarray(CAT).save(tmp_path/'a.jpg', xmp=XMP)
    p = open_photo(tmp_path/'a.jpg')
    assert p.size == (40,61)
    for s in SAVES: assert open_photo(save_photo(p.to_pil(), tmp_path/f'b{s}', exif=p.exif, meta=p.meta)).size == (40,61)

@pytest.mark.parametrize('seed', range(60))
def test_mutated_metadata(tmp_path, seed):
    "Broken tags never stop a photo, and what is kept can be written"
    rng = np.random.default_rng(seed)
    b = io.BytesIO()
    if seed % 2: Image.fromarray(CAT).save(b, 'JPEG', exif=exif_block('<>'[seed % 4 > 1]), xmp=XMP, comment=b'hello')
    else: tifffile.imwrite(b, CAT, photometric='rgb', extratags=[(0x13b, 's', 0, ARTIST, True), (700, 'B', len(XMP), XMP, True), (330, 'I', 1, 8, True)])
    whole = bytearray(b.getvalue())
    for i in rng.integers(2, min(len(whole), 700), 6): whole[i] = rng.integers(256)
    (tmp_path/'a').write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: p = open_photo(tmp_path/'a')
        except PhotoError: return
        if max(p.size) > 16_383: return                                       # more than a WebP holds
        for s in ('.jpg', '.png', '.webp', '.tif'): assert open_photo(save_photo(p.to_pil().convert('RGB'), tmp_path/f'b{s}', exif=p.exif, meta=p.meta)).size == p.size

# ---- damaged heads

@pytest.mark.parametrize('tag', (254, 258, 284, 332, 339, 330, 700, 34675))
@pytest.mark.parametrize('kind,value', [(2, b'eight\0'), (5, struct.pack('<2I', 1, 3)), (12, struct.pack('<d', .5)),
                                        (3, b'')], ids=['text', 'fraction', 'float', 'nothing'])
def test_any_kind_of_value_under_any_tag(tmp_path, tag, kind, value):
    "Read, or refused in a sentence: `PhotoError` is the only error"
    tags = {256:(4, 1, struct.pack('<I', 4)), 257:(4, 1, struct.pack('<I', 2)), 258:(3, 1, b'\x08\0'),
            259:(3, 1, b'\1\0'), 262:(3, 1, b'\1\0'), 273:(4, 1, struct.pack('<I', 8)),
            278:(4, 1, struct.pack('<I', 2)), 279:(4, 1, struct.pack('<I', 8))}
    tags[tag] = kind,len(value)//{2:1, 5:8, 12:8, 3:2}[kind],value
    (tmp_path/'a.tif').write_bytes(b''.join(write_tags('<', tags, bytes(range(8)))))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: assert opened(tmp_path/'a.tif').shape == (2,4,3)
        except PhotoError as e: assert e.reason.endswith('.') and '\n' not in e.reason

def test_chromaticities_that_are_too_many(tmp_path):
    nine = b'cHRM',struct.pack('>9I', *range(1, 10))
    (tmp_path/'a.png').write_bytes(png([r.tobytes() for r in CAT], 61, 8, 2, nine))
    assert (opened(tmp_path/'a.png') == CAT).all()

def test_a_head_that_lies_about_the_size(tmp_path):
    "The decoder finds another picture than its head announces: Pillow would give it, of a size that nobody asked about"
    pillow_heif = pytest.importorskip('pillow_heif')
    pillow_heif.from_bytes('RGB', (61,40), CAT.tobytes()).save(tmp_path/'a.heic')
    whole = (tmp_path/'a.heic').read_bytes()
    lie = lambda m: m[1] + struct.pack('>I', 50_000)
    (tmp_path/'b.heic').write_bytes(re.sub(rb'(ispe.{4}).{4}', lie, whole, flags=re.S))
    assert open_photo(tmp_path/'a.heic').size == (61,40)
    with pytest.raises(PhotoError, match='broken'): open_photo(tmp_path/'b.heic')
