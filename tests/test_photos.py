"Photos of every mode by round trip, hostile files, and faults while writing"
import errno,io,os,struct,subprocess,sys,warnings,zlib
import numpy as np, pytest, torch
from pathlib import Path
import PIL
from PIL import Image, ImageCms, ImageFile
from skimage import data
from fastai_colorize.base import files
from fastai_colorize.base.photos import *
from fastai_colorize.base.usable import check_photos, describe_left_out

CAT = Image.fromarray(data.chelsea()).resize((226,150), Image.Resampling.BOX)
GREY = CAT.convert('L')

def near(a, b, tol): return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).mean() <= tol

def alpha():
    a = np.zeros((CAT.height, CAT.width), np.uint8)
    a[:,50:] = np.linspace(1, 255, CAT.width - 50).astype(np.uint8)
    return Image.fromarray(a)

def with_alpha(im):
    im = im.copy(); im.putalpha(alpha()); return im

# ---- modes

@pytest.mark.parametrize('name,im,want,tol', [
    ('l.png', GREY, GREY, 0), ('l.jpg', GREY, GREY, 4), ('rgb.png', CAT, CAT, 0), ('rgb.jpg', CAT, CAT, 4), ('rgb.webp', CAT, CAT, 4), ('rgb.tif', CAT, CAT, 0),
    ('rgb.bmp', CAT, CAT, 0), ('rgb.ppm', CAT, CAT, 0), ('one.png', GREY.convert('1'), GREY.convert('1').convert('L'), 0), ('cmyk.jpg', CAT.convert('CMYK'), CAT, 5),
    ('cmyk.tif', CAT.convert('CMYK'), CAT, 0), ('ycc.jpg', CAT.convert('YCbCr'), CAT, 4), pytest.param('ycc.tif', CAT.convert('YCbCr'), CAT, 2, marks=pytest.mark.skipif(PIL.__version__ < '13', reason='Pillow 12 cannot read its own YCbCr TIFF')),
    ('p.png', CAT.quantize(256), CAT.quantize(256).convert('RGB'), 0), ('p.gif', CAT.quantize(256), CAT.quantize(256).convert('RGB'), 0)])
def test_modes_in_files(tmp_path, name, im, want, tol):
    im.save(tmp_path/name)
    p = open_photo(tmp_path/name)
    assert p.rgb.dtype == np.uint8 and p.size == CAT.size and p.alpha is None and p.rgb.flags.writeable
    assert near(p.rgb, want.convert('RGB'), tol)

@pytest.mark.parametrize('mode', ['HSV', 'YCbCr', 'LAB', 'RGBX', 'CMYK', 'P'])
def test_modes_in_memory(mode):
    im = ImageCms.profileToProfile(CAT, ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), outputMode='LAB') if mode == 'LAB' else CAT.convert(mode)
    assert near(open_photo(im).rgb, CAT, 20 if mode == 'P' else 3)   # P: the web palette

@pytest.mark.parametrize('name', ['la.png', 'rgba.png', 'rgba.webp', 'rgba.tif', 'la.tif'])
def test_alpha(tmp_path, name):
    im = with_alpha(GREY if name.startswith('la') else CAT)
    im.save(tmp_path/name, **({'lossless':True, 'exact':True} if name.endswith('webp') else {}))
    p = open_photo(tmp_path/name)
    assert (p.alpha == np.asarray(alpha())).all() and near(p.rgb, im.convert('RGB'), 0)
    q = open_photo(save_photo(p.to_pil(), tmp_path/'again.png'))
    assert (q.alpha == p.alpha).all() and (q.rgb == p.rgb).all()

def test_other_transparency(tmp_path):
    pal = CAT.quantize(64)
    pal.save(tmp_path/'index.png', transparency=pal.getpixel((0,0)))
    pal.save(tmp_path/'many.png', transparency=bytes(range(64)))
    pal.save(tmp_path/'index.gif', transparency=pal.getpixel((0,0)))
    CAT.save(tmp_path/'key.png', transparency=CAT.getpixel((0,0)))
    GREY.save(tmp_path/'grey key.png', transparency=GREY.getpixel((0,0)))
    for f in ('index.png', 'index.gif'): assert ((open_photo(tmp_path/f).alpha == 0) == (np.asarray(pal) == pal.getpixel((0,0)))).all()
    assert (open_photo(tmp_path/'many.png').alpha == np.asarray(pal)).all()
    assert ((open_photo(tmp_path/'key.png').alpha == 0) == (np.asarray(CAT) == CAT.getpixel((0,0))).all(2)).all()
    assert ((open_photo(tmp_path/'grey key.png').alpha == 0) == (np.asarray(GREY) == GREY.getpixel((0,0)))).all()
    for mode in ('La', 'RGBa'):
        p = open_photo(with_alpha(GREY if mode == 'La' else CAT).convert(mode))
        assert (p.alpha == np.asarray(alpha())).all()

def test_deep_modes(tmp_path):
    g = np.asarray(GREY)
    wide = g.astype(np.uint16)*257
    for f in ('w.png', 'w.tif'): Image.fromarray(wide).save(tmp_path/f)
    Image.frombytes('I;16B', GREY.size, wide.astype('>u2').tobytes()).save(tmp_path/'big-endian.tif')
    Image.fromarray(wide.astype(np.int32)).save(tmp_path/'i.tif')
    for scale in (1, 255, 65535): Image.fromarray((g/255*scale).astype(np.float32)).save(tmp_path/f'f{scale}.tif')
    for f in tmp_path.iterdir(): assert (open_photo(f).rgb == g[...,None]).all(), f
    Image.fromarray((g - np.float32(300))*1000).save(tmp_path/'elevation.tif')
    stretched = open_photo(tmp_path/'elevation.tif').rgb[...,0]
    assert (stretched.min(), stretched.max()) == (0, 255)
    overshoot = g/255.; overshoot[0,0],overshoot[0,1] = -.05,1.05
    assert (open_photo(overshoot).rgb[1:,:,0] == g[1:]).all()
    assert not open_photo(np.full((5,5), 1e9)).rgb.any()
    for bad in (np.nan, np.inf, -np.inf, 1e300):
        with pytest.raises(PhotoError, match='finite'): open_photo(np.array([[0, bad], [.5, 1]]))

def test_sixteen_bit_colour(tmp_path):
    "Pillow cannot write 16-bit RGB, so the PNG is written by hand"
    rgb = np.asarray(CAT).astype('>u2')*257
    chunk = lambda k,d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    rows = b''.join(b'\0' + r.tobytes() for r in rgb)
    (tmp_path/'rgb16.png').write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', *CAT.size, 16, 2, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))
    assert (open_photo(tmp_path/'rgb16.png').rgb == np.asarray(CAT)).all()

@pytest.mark.parametrize('a', [np.asarray(CAT), np.asarray(CAT)/255, (np.asarray(CAT)/255).astype(np.float32), np.asarray(CAT).astype(np.uint16)*257, np.asarray(CAT)*1.])
def test_arrays(a):
    grey,al = a[...,1],a[...,2]
    rgb = np.asarray(CAT)
    for x,want,has_alpha in ((a, rgb, False), (grey, rgb[...,[1]*3], False), (grey[...,None], rgb[...,[1]*3], False),
                             (np.dstack([grey, al]), rgb[...,[1]*3], True), (np.dstack([a, al]), rgb, True)):
        p = open_photo(x)
        assert (p.rgb == want).all() and (p.alpha is not None) == has_alpha
        if has_alpha: assert (p.alpha == rgb[...,2]).all()

def test_arrays_are_copied():
    a = data.chelsea()
    open_photo(a).rgb[:] = 0
    assert a.any()
    mask = np.asarray(GREY) > 99
    assert (open_photo(mask).rgb[...,0] == mask*255).all()

def test_first_frame(tmp_path):
    black = Image.new('RGB', CAT.size)
    CAT.save(tmp_path/'m.tif', save_all=True, append_images=[black])
    CAT.quantize(256).save(tmp_path/'m.gif', save_all=True, append_images=[black.convert('P')])
    assert (open_photo(tmp_path/'m.tif').rgb == np.asarray(CAT)).all()
    assert near(open_photo(tmp_path/'m.gif').rgb, CAT, 6)

def test_smallest(tmp_path):
    for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'):
        Image.new(mode, (1,1)).save(tmp_path/'one.png')
        assert open_photo(tmp_path/'one.png').rgb.shape == (1,1,3)

# ---- EXIF and profiles

@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
@pytest.mark.parametrize('o', range(1, 9))
def test_orientation(tmp_path, o, suffix):
    "The stored picture is turned by hand so that orientation `o` makes it upright: an inverse by numpy, not by Pillow"
    a = np.zeros((48,64,3), np.uint8); a[:24] = 200; a[:,:32,0] = 90
    stored = {1:a, 2:a[:,::-1], 3:a[::-1,::-1], 4:a[::-1], 5:a.swapaxes(0,1), 6:np.rot90(a, 1), 7:np.rot90(a, 2).swapaxes(0,1), 8:np.rot90(a, -1)}[o]
    exif = Image.Exif(); exif[0x112],exif[0x110] = o,'model X'
    exif.get_ifd(0x8769)[0x9003] = '2020:02:02 02:02:02'
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path/f'o{suffix}', exif=exif.tobytes())
    p = open_photo(tmp_path/f'o{suffix}')
    assert p.rgb.shape == a.shape and near(p.rgb, a, 3)
    kept = Image.Exif(); kept.load(p.exif)
    assert 0x112 not in kept and kept[0x110] == 'model X' and kept.get_ifd(0x8769)[0x9003].startswith('2020')
    for s in ('.jpg', '.png', '.webp', '.tif'):            # kept through every format, and not turned a second time
        q = open_photo(save_photo(p.to_pil(), tmp_path/f'again{s}', exif=p.exif))
        again = Image.Exif(); again.load(q.exif)
        assert q.rgb.shape == a.shape and again[0x110] == 'model X' and again.get_ifd(0x8769)[0x9003].startswith('2020')

def test_exif_of_a_users_image_is_left_alone(tmp_path):
    exif = Image.Exif(); exif[0x112] = 6
    CAT.save(tmp_path/'a.jpg', exif=exif)
    im = Image.open(tmp_path/'a.jpg')
    assert open_photo(im).size == CAT.size[::-1] and im.getexif()[0x112] == 6 and im.size == CAT.size

@pytest.mark.parametrize('o', (1, 3, 6, 8))
@pytest.mark.parametrize('a', [np.asarray(GREY).astype(np.uint16)*257, np.asarray(GREY)/np.float32(255), np.asarray(with_alpha(CAT))], ids=['16 bits', 'float', 'alpha'])
def test_orientation_of_other_modes(tmp_path, o, a):
    exif = Image.Exif(); exif[0x112] = o
    f = tmp_path/('a.tif' if a.dtype == np.float32 else 'a.png')
    Image.fromarray(np.ascontiguousarray(np.rot90(a, {1:0, 3:2, 6:1, 8:-1}[o]))).save(f, exif=exif.tobytes())
    p = open_photo(f)
    assert p.size == photo_size(f) == CAT.size
    assert (p.rgb == open_photo(a).rgb).all() and (p.alpha is None or (p.alpha == a[...,3]).all())

@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'CMYK', 'P', '1'])
@pytest.mark.parametrize('o', (3, 6, 8))
def test_turned_tiff(tmp_path, o, mode):
    "Pillow 12 scrambles some of them when it maps the file into memory"
    im = CAT.convert(mode)
    exif = Image.Exif(); exif[0x112] = o
    im.transpose({3:Image.Transpose.ROTATE_180, 6:Image.Transpose.ROTATE_90, 8:Image.Transpose.ROTATE_270}[o]).save(tmp_path/'a.tif', exif=exif.tobytes())
    assert (open_photo(tmp_path/'a.tif').rgb == open_photo(im).rgb).all() and photo_size(tmp_path/'a.tif') == CAT.size

def test_orientation_in_xmp(tmp_path):
    "Some programs note the orientation there alone"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    CAT.save(tmp_path/'a.jpg', xmp=xmp)
    CAT.save(tmp_path/'a.tif', tiffinfo={700: xmp})
    for f in ('a.jpg', 'a.tif'): assert open_photo(tmp_path/f).size == photo_size(tmp_path/f) == CAT.size[::-1]

def test_size_from_the_head(tmp_path):
    CAT.save(tmp_path/'whole.jpg')
    (tmp_path/'cut.jpg').write_bytes((tmp_path/'whole.jpg').read_bytes()[:2000])
    assert photo_size(tmp_path/'cut.jpg') == CAT.size
    with open_header(tmp_path/'whole.jpg') as im: assert im.size == CAT.size and im.mode == 'RGB'
    (tmp_path/'text.jpg').write_text('no picture')
    with pytest.raises(PhotoError, match='not an image'): photo_size(tmp_path/'text.jpg')
    CAT.save(tmp_path/'broken.jpg', exif=b'Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage')
    assert photo_size(tmp_path/'broken.jpg') == CAT.size

def test_missing_is_a_missing_file(tmp_path):
    for f in (open_photo, photo_size, find_photos):
        with pytest.raises(FileNotFoundError, match='no such file'): f(tmp_path/'none.jpg')
        with pytest.raises(PhotoError, match='no such file'): f(tmp_path/'none.jpg')

def test_broken_exif(tmp_path):
    for n in ('a.jpg', 'a.png', 'a.webp'):
        CAT.save(tmp_path/n, exif=b'Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')                                    # Pillow's own
            p = open_photo(tmp_path/n)
        assert near(p.rgb, CAT, 4) and p.exif is None and photo_note(p, 'x.jpg') == 'its EXIF is broken and left out'

def test_photos_that_are_no_path(tmp_path):
    "Bytes, open files, arrays and tensors give what the file gives; what is none of them is refused with a sentence"
    turn = Image.Exif()
    turn[0x112] = 6
    for n in ('a.png', 'a.tif', 'a.webp'):
        CAT.save(tmp_path/n, exif=turn)
        data,want = (tmp_path/n).read_bytes(),open_photo(tmp_path/n).rgb
        with open(tmp_path/n, 'rb') as f:
            for o in (data, bytearray(data), memoryview(data), io.BytesIO(data), f):
                assert np.array_equal(open_photo(o).rgb, want), (n, o)
    x = torch.from_numpy(np.asarray(CAT).copy()).permute(2,0,1)
    for o in (x, x/255, (x/255).double()):
        assert np.array_equal(open_photo(o).rgb, np.asarray(CAT))
    assert open_photo(x[:1]).rgb.shape == (*x.shape[1:], 3)
    shape = r'shape \(C, H, W\)'
    for o,what in ((x[None], shape), (x.permute(1,2,0), shape), (None, 'a photo is a path'), ([x], 'a photo is a'),
                   (io.StringIO('a'), "mode 'rb'"), (b'', 'is empty'), (b'letter', 'not an image')):
        with pytest.raises(PhotoError, match=what): open_photo(o)
    with pytest.raises(FileNotFoundError, match='is an address; download'): open_photo('https://example.com/a.jpg')

def test_a_part_of_the_exif_is_broken(tmp_path):
    "A directory below that lies outside of the data; the rest is kept, and the loss is said"
    artist = struct.pack('<HHI4s', 0x13b, 2, 4, b'Zoe\0')
    below = struct.pack("<HHII", 0x8769, 4, 1, 2**20)
    CAT.save(tmp_path/"a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\2\0" + artist + below + bytes(4))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                                        # Pillow's own
        p = open_photo(tmp_path/'a.jpg')
    kept = Image.Exif()
    kept.load(p.exif)
    assert dict(kept) == {0x13b:'Zoe'} and photo_note(p, 'x.jpg') == 'a part of its EXIF is broken and left out'

def test_two_exif_chunks(tmp_path):
    "The size that is said of a PNG is the size that it has, whichever of two eXIf chunks comes late"
    turn = lambda o: b'MM\0*\0\0\0\x08\0\1' + struct.pack('>HHIHH', 0x112, 3, 1, o, 0) + bytes(4)
    chunk = lambda k,d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    CAT.save(tmp_path/'a.png', exif=turn(1))
    whole = (tmp_path/'a.png').read_bytes()
    (tmp_path/'b.png').write_bytes(whole[:-12] + chunk(b'eXIf', turn(6)) + whole[-12:])
    assert photo_size(tmp_path/'b.png') == open_photo(tmp_path/'b.png').size == CAT.size

def test_too_long_exif(tmp_path):
    exif = Image.Exif(); exif[0x10e] = 'x'*70_000
    p = Photo(np.asarray(CAT), exif=exif.tobytes())
    for n,note in (('a.jpg', 'without its EXIF, too long for a JPEG'), ('a.png', '')):
        save_photo(p.to_pil(), tmp_path/n, exif=p.exif)
        assert photo_note(p, tmp_path/n) == note and (open_photo(tmp_path/n).exif is None) == bool(note)

def swapped_profile():
    "An sRGB profile with the red and blue primaries exchanged and another name: whoever applies it sees red and blue change places"
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
    n = struct.unpack('>I', icc[128:132])[0]
    for i in range(n):
        at = 132 + 12*i
        if icc[at:at+4] == b'rXYZ': icc[at:at+4] = b'bXYZ'
        elif icc[at:at+4] == b'bXYZ': icc[at:at+4] = b'rXYZ'
    return bytes(icc).replace('sRGB'.encode('utf-16-be'), 'swap'.encode('utf-16-be'))

@pytest.mark.parametrize('suffix', ['.png', '.tif', '.webp'])
def test_profile_is_applied(tmp_path, suffix):
    kw = {'lossless':True} if suffix == '.webp' else {}
    CAT.save(tmp_path/f'a{suffix}', icc_profile=swapped_profile(), **kw)
    assert near(open_photo(tmp_path/f'a{suffix}').rgb, np.asarray(CAT)[...,::-1], 1)
    with_alpha(CAT).save(tmp_path/f'b{suffix}', icc_profile=swapped_profile(), **kw)
    p = open_photo(tmp_path/f'b{suffix}')
    assert (p.alpha == np.asarray(alpha())).all() and near(p.rgb[:,60:], np.asarray(CAT)[:,60:,::-1], 1)
    GREY.save(tmp_path/f'c{suffix}', icc_profile=swapped_profile(), **kw)
    assert near(open_photo(tmp_path/f'c{suffix}').rgb, GREY.convert('RGB'), 2)

def test_result_has_no_profile(tmp_path):
    CAT.save(tmp_path/'a.png', icc_profile=swapped_profile())
    assert 'icc_profile' not in open_photo(tmp_path/'a.png').to_pil().info

def test_srgb_profile_changes_nothing(tmp_path):
    CAT.save(tmp_path/'a.png', icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
    assert (open_photo(tmp_path/'a.png').rgb == np.asarray(CAT)).all()

@pytest.mark.parametrize('icc', [b'garbage', swapped_profile()[:200], ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes()])
def test_broken_profile(tmp_path, icc):
    CAT.save(tmp_path/'a.png', icc_profile=icc)
    p = open_photo(tmp_path/'a.png')
    assert (p.rgb == np.asarray(CAT)).all() and p.note == 'its colour profile cannot be used and is left out'

# ---- bad input

def png_header(w, h): # a PNG that says it is w × h and holds nothing
    chunk = lambda k,d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(b'\0'*100)) + chunk(b'IEND', b'')

def hostile(d):
    CAT.save(d/'whole.jpg', quality=90); CAT.save(d/'whole.png'); CAT.save(d/'whole.webp'); CAT.save(d/'whole.tif'); CAT.quantize(9).save(d/'whole.gif')
    for s in ('jpg', 'png', 'webp', 'tif', 'gif'):
        whole = (d/f'whole.{s}').read_bytes()
        (d/f'half.{s}').write_bytes(whole[:len(whole)//2]); (d/f'head.{s}').write_bytes(whole[:20])
        (d/f'whole.{s}').unlink()
    (d/'text.jpg').write_text('This is not a picture.'); (d/'empty.jpg').touch()
    (d/'huge.png').write_bytes(png_header(30_000, 30_000)); (d/'hollow.png').write_bytes(png_header(200, 200))
    (d/'script.eps').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n')
    (d/'zero.bmp').write_bytes(b'BM' + struct.pack('<IHHIIIIHHIIIIII', 54, 0, 0, 54, 40, 0, 0, 1, 24, 0, 0, 0, 0, 0, 0))
    (d/'folder.jpg').mkdir()
    Image.fromarray(np.full((4,4), np.nan, np.float32)).save(d/'nan.tif')

def test_hostile_files(tmp_path):
    hostile(tmp_path)
    words = {'text.jpg':'not an image', 'empty.jpg':'is empty', 'huge.png':'100 megapixels', 'folder.jpg':'is a folder', 'nan.tif':'NaN', 'half.jpg':'broken', 'script.eps':'not an image'}
    with warnings.catch_warnings():
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        for f in sorted(tmp_path.iterdir()):
            with pytest.raises(PhotoError, match=words.get(f.name, '.')) as e: open_photo(f)
            assert str(e.value).startswith(str(f)) and '\n' not in str(e.value) and str(e.value).endswith('.'), f
    with pytest.raises(PhotoError, match='no such file'): open_photo(tmp_path/'none.jpg')
    with pytest.raises(PhotoError): open_photo('null\0byte.jpg')
    df = check_photos([f for f in sorted(tmp_path.iterdir())] + [tmp_path/'none.jpg'])
    assert not df.ok.any() and (df.reason.str.len() > 3).all()

@pytest.mark.parametrize('bad', [np.zeros((4,)), np.zeros((0,5)), np.zeros((2,2,2,2)), np.zeros((3,9,9)), np.zeros((2,2), np.int64), np.zeros((2,2), complex), np.array([['a']]), None, 3, [1,2]])
def test_bad_objects(bad):
    with pytest.raises(PhotoError): open_photo(bad)

@pytest.mark.parametrize('w,h,fmt', [(9990,10_000,'BMP'), (9990,10_000,'TIFF'), (9990,10_000,'PNG')])
def test_up_to_the_limit_without_a_warning(tmp_path, w, h, fmt):
    Image.new('1', (w,h)).save(tmp_path/'a', fmt)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert open_photo(tmp_path/'a').size == (w,h)

@pytest.mark.parametrize('w,h', [(10_001,10_000), (13_000,10_000), (30_000,30_000), (2**31 - 1,2**31 - 1)])
def test_beyond_the_limit_one_sentence(tmp_path, w, h):
    (tmp_path/'a.png').write_bytes(png_header(w, h))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(PhotoError, match='100 megapixels'): open_photo(tmp_path/'a.png')

def test_pillows_limit_of_others_is_respected():
    for before,after in (('None', 'None'), ('5', str(MAX_PIXELS)), ('10**9', str(10**9))):
        code = f'from PIL import Image; Image.MAX_IMAGE_PIXELS = {before}\nimport fastai_colorize.base.photos\nprint(Image.MAX_IMAGE_PIXELS)'
        assert subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True).stdout.strip() == after

# ---- saving

class Full(io.RawIOBase):
    def __init__(self, f): self.f = f
    def __enter__(self): return self
    def __exit__(self, *a): self.f.close()
    def write(self, b): self.f.write(bytes(b[:100])); raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

@pytest.mark.parametrize('suffix', SAVES)
def test_full_disk(tmp_path, monkeypatch, suffix):
    import builtins
    old = save_photo(GREY, tmp_path/f'a{suffix}').read_bytes()
    monkeypatch.setattr(files, 'open', lambda p,m: Full(builtins.open(p, m)), raising=False)
    with pytest.raises(PhotoError, match='No space left'): save_photo(CAT, tmp_path/f'a{suffix}')
    assert (tmp_path/f'a{suffix}').read_bytes() == old and len(list(tmp_path.iterdir())) == 1

def test_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    def stop(*a): raise KeyboardInterrupt
    monkeypatch.setattr(os, 'replace', stop)
    with pytest.raises(KeyboardInterrupt): save_photo(CAT, tmp_path/'a.jpg')
    assert not list(tmp_path.iterdir())

def test_unwritable(tmp_path, monkeypatch):
    (tmp_path/'file').touch()
    with pytest.raises(PhotoError, match='cannot be written'): save_photo(CAT, tmp_path/'file'/'a.jpg')
    with pytest.raises(PhotoError, match='cannot be written'): save_photo(CAT, tmp_path/f'{"x"*300}.jpg')
    (tmp_path/'dir.jpg').mkdir()
    with pytest.raises(PhotoError, match='cannot be written'): save_photo(CAT, tmp_path/'dir.jpg')
    assert len(list(tmp_path.iterdir())) == 2
    if os.getuid():
        (tmp_path/'ro').mkdir(mode=0o555)
        with pytest.raises(PhotoError, match='Permission'): save_photo(CAT, tmp_path/'ro'/'a.jpg')

def test_what_a_format_cannot_hold(tmp_path):
    with pytest.raises(PhotoError, match='transparency'): save_photo(with_alpha(CAT), tmp_path/'a.jpg')
    with pytest.raises(PhotoError, match='transparency'): save_photo(with_alpha(GREY), tmp_path/'a.JPEG')
    with pytest.raises(PhotoError, match='encoded as WEBP'): save_photo(Image.new('L', (17_000,1)), tmp_path/'a.webp')
    with pytest.raises(PhotoError, match='must end in'): save_photo(CAT, tmp_path/'a')
    assert not list(tmp_path.iterdir())
    assert (open_photo(save_photo(np.asarray(CAT), tmp_path/'a.PNG')).rgb == np.asarray(CAT)).all()

# ---- finding and checking

def test_find(tmp_path):
    for n in ('b.JPG', 'a.jpeg', 'sub/c.Png', 'sub/deep/d.webp', 'e.tif', 'f.TIFF', 'g.bmp', 'h.gif', 'no.txt', 'jpg', '.hidden.jpg', '.cache/x.jpg', 'sub/xjpg'):
        (tmp_path/n).parent.mkdir(parents=True, exist_ok=True); (tmp_path/n).touch()
    (tmp_path/'sub'/'loop').symlink_to(tmp_path)
    found = find_photos(tmp_path)
    assert sorted(f.relative_to(tmp_path).as_posix() for f in found) == ['a.jpeg', 'b.JPG', 'e.tif', 'f.TIFF', 'g.bmp', 'h.gif', 'sub/c.Png', 'sub/deep/d.webp']
    assert found == sorted(found) and all(isinstance(f, Path) for f in found)
    assert find_photos([tmp_path/'no.txt', str(tmp_path/'b.JPG'), tmp_path]) == [tmp_path/'no.txt', tmp_path/'b.JPG'] + [f for f in found if f.name != 'b.JPG']
    with pytest.raises(PhotoError, match='no such'): find_photos([tmp_path, tmp_path/'nowhere'])
    (tmp_path/'void').mkdir()
    with pytest.raises(PhotoError, match='no photos'): find_photos(tmp_path/'void')

def test_check(tmp_path):
    camera,astro = Image.fromarray(data.camera()),Image.fromarray(data.astronaut())
    ims = {'l.png':camera, 'la.png':camera.convert('LA'), 'rgb.jpg':camera.convert('RGB'), 'p.gif':camera.convert('P'), 'cmyk.jpg':camera.convert('RGB').convert('CMYK'),
           'w.png':Image.fromarray(data.camera().astype(np.uint16)*257), 'one.png':camera.convert('1'), 'f.tif':camera.convert('F')}
    good = {'a.jpg':astro, 'a.png':astro, 'ap.gif':astro.quantize(64), 'ac.jpg':astro.convert('CMYK'), 'sepia.jpg':Image.fromarray((data.camera()[...,None]*np.array([1,.87,.7])).astype(np.uint8)),
            'a32.png':astro.crop((200,100,232,140))}
    for n,im in {**ims, **good}.items(): im.save(tmp_path/n, **({'quality':50} if n.endswith('jpg') else {}))
    df = check_photos([tmp_path/n for n in {**ims, **good}], workers=2)
    assert list(df.columns) == ['file', 'ok', 'reason'] and df.file.tolist() == [tmp_path/n for n in {**ims, **good}]
    assert df.reason.tolist() == ['grey']*len(ims) + ['']*len(good)
    assert check_photos([tmp_path/'a32.png'], min_size=33).reason[0] == 'smaller than 33 pixels'
    assert len(check_photos([])) == 0

def test_threads_open_the_same(tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    CAT.save(tmp_path/'a.png'); CAT.convert('CMYK').save(tmp_path/'b.jpg')
    want = [open_photo(tmp_path/f).rgb for f in ('a.png', 'b.jpg')]
    with ThreadPoolExecutor(8) as ex:
        for i,p in enumerate(ex.map(open_photo, [tmp_path/'a.png', tmp_path/'b.jpg']*20)): assert (p.rgb == want[i%2]).all()

def test_reasons_are_one_line():
    "What libraries say has line ends; names of files are left as they are"
    assert PhotoError('a', 'broken: no end (at 5)\n.').reason == 'broken: no end (at 5).'
    assert PhotoError('a', 'broken: one\r\n two..').reason == 'broken: one two.'
    assert PhotoError('a', "its result would be b  c.jpg.").reason == "its result would be b  c.jpg."

def test_profile_that_is_a_number(tmp_path):
    "As a damaged TIFF has it, and XMP likewise"
    CAT.save(tmp_path/'a.tif', tiffinfo={34675: 5, 700: 7})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert (open_photo(tmp_path/'a.tif').rgb == np.asarray(CAT)).all()
