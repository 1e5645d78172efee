"""Mutated picture files: each is read, or refused in one sentence; no traceback, no crash, no hang, bounded memory.

    python benchmarks/fuzz.py --n 10000 --seed 0 --keep faults

Small valid files of every format that the package reads, made here, are damaged: bits, bytes and numbers (in the
header above all), cuts, splices, chunks of PNG (with a right checksum), segments of JPEG, entries of TIFF, boxes of
AVIF and JPEG 2000. Each file is opened in a process of its own making, which is watched: `--limit` seconds a file,
`--memory` MB at most. Every tenth goes through `Colorizer.colorize_files` as well, a folder of 50 at a time, with a
tiny network. File i of seed s is always the same: `--only i` runs it alone. What fails is kept in the folder
`--keep`, as `SEED_i.suffix`."""
import io, random, resource, select, struct, subprocess, sys, tempfile, warnings, zlib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from pathlib import Path
from time import monotonic

# ---- valid files

def picture(w=31, h=22):
    import numpy as np
    y,x = np.mgrid[:h,:w]
    return np.dstack([x*8, y*11, (x + y)*4]).astype('uint8')

def exif_and_more():
    "EXIF with a thumbnail's tags, a profile, XMP"
    from PIL import Image, ImageCms
    exif = Image.Exif()
    exif[0x112],exif[0x10e],exif[0x13b] = 6,'a description','Märta'
    exif.get_ifd(0x8769)[0x9003] = '2020:02:02 02:02:02'
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    return dict(exif=exif.tobytes(), icc_profile=icc, xmp=xmp, dpi=(300, 300))

def pillow_files(res):
    "Written by Pillow"
    from PIL import Image, PngImagePlugin
    im,more = Image.fromarray(picture()),exif_and_more()
    def save(name, im, fmt, **kw):
        f = io.BytesIO()
        im.save(f, fmt, **kw)
        res[name] = f.getvalue()
    for mode in ('RGB', 'L', 'CMYK'): save(f'{mode}.jpg', im.convert(mode), 'JPEG')
    save('progressive.jpg', im, 'JPEG', progressive=True, comment='a comment', **more)
    for mode in ('RGB', 'L', 'LA', 'RGBA', 'P', '1', 'I;16'):
        o = im.convert('L').convert('I') if mode == 'I;16' else im
        save(f'{mode[:2]}.png', o.convert(mode), 'PNG')
    text = PngImagePlugin.PngInfo()
    text.add_text('Title', 'a title', zip=True)
    text.add(b'gAMA', struct.pack('>I', 100000))
    text.add(b'cHRM', struct.pack('>8I', 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
    save('more.png', im, 'PNG', pnginfo=text, transparency=(8, 11, 4), exif=more['exif'], dpi=(300, 300))
    save('profile.png', im, 'PNG', icc_profile=more['icc_profile'])
    for fmt in ('GIF', 'PNG', 'WEBP'):
        save(f'frames.{fmt.lower()}', im, fmt, save_all=True, append_images=[im.rotate(90)])
    save('plain.gif', im.quantize(20), 'GIF', transparency=3, comment=b'a comment')
    save('plain.webp', im, 'WEBP', **{k: v for k,v in more.items() if k != 'dpi'})
    save('lossless.webp', im.convert('RGBA'), 'WEBP', lossless=True)
    for mode in ('RGB', 'L', '1', 'P'): save(f'{mode}.bmp', im.convert(mode), 'BMP')
    for mode in ('RGB', 'L', '1'): save(f'{mode}.ppm', im.convert(mode), 'PPM')
    for mode in ('RGB', 'L', 'RGBA'): save(f'{mode}.jp2', im.convert(mode), 'JPEG2000')
    save('codestream.j2k', im, 'JPEG2000', no_jp2=True)
    save('plain.avif', im, 'AVIF', **{k: v for k,v in more.items() if k != 'dpi'})
    for c in (None, 'tiff_lzw', 'tiff_adobe_deflate', 'packbits', 'jpeg'):
        save(f'{c}.tif', im, 'TIFF', compression=c, **({} if c else more))
    save('group4.tif', im.convert('1'), 'TIFF', compression='group4')
    save('raw.dng', im, 'TIFF', tiffinfo={50706: b'\1\4\0\0'})
    save('xmp.tif', im, 'TIFF', tiffinfo={700: more['xmp']})
    save('pages.tif', im.convert('L'), 'TIFF', save_all=True, append_images=[im, im])

def tifffile_files(res):
    "Other kinds of TIFF, where tifffile is installed"
    try: import numpy as np, tifffile
    except ImportError: return
    a = picture()
    kinds = dict(
        deep=(a.astype('u2')*257, dict(photometric='rgb')),
        planes=(a.transpose(2,0,1), dict(photometric='rgb', planarconfig='separate')),
        floats=((a[...,0]/255).astype('f4'), dict(photometric='minisblack')),
        negative=(a[...,0].astype('u2'), dict(photometric='miniswhite')),
        big=(a, dict(photometric='rgb', bigtiff=True)),
        tiles=(a, dict(photometric='rgb', tile=(16,16))),
        motorola=(a, dict(photometric='rgb', byteorder='>')),
        alpha=(np.dstack([a, a[...,:1]]), dict(photometric='rgb', extrasamples=['unassalpha'])))
    for name,(o,kw) in kinds.items():
        f = io.BytesIO()
        tifffile.imwrite(f, o, **kw)
        res[f'{name}.tif'] = f.getvalue()

def heic_files(res):
    "HEIC, where pillow-heif is installed"
    try: import pillow_heif
    except ImportError: return
    f = io.BytesIO()
    pillow_heif.from_bytes('RGB', (31,22), picture().tobytes()).save(f)
    res['plain.heic'] = f.getvalue()

def written_by_hand(res):
    "Old or odd headers that no program here writes"
    row = bytes(range(12))
    res['os2.bmp'] = b'BM' + struct.pack('<IHHIIHHHH', 26 + 24, 0, 0, 26, 12, 4, 2, 1, 24) + row*2
    res['ascii.ppm'] = b'P3 # numbers\n2 2\n255\n' + b'1 2 3 4 5 6 7 8 9 10 11 12\n'
    res['floats.pfm'] = b'Pf\n2 2\n-1.0\n' + struct.pack('<4f', 0, .3, .6, 1)

def valid_files():
    res = {}
    for make in (pillow_files, tifffile_files, heic_files, written_by_hand): make(res)
    return dict(sorted(res.items()))

# ---- damage: functions of a random generator, a bytearray and the other files

ODD = (0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0,
       10**8, 30_000)
KINDS = b'tRNS PLTE gAMA cHRM iCCP cICP acTL fcTL fdAT eXIf zTXt iTXt pHYs'.split()
TAGS = (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 330, 332, 338, 339,
        347, 530, 34665, 34675, 37724)

def place(r, a):
    "More often in the header than behind it"
    n = max(1, len(a))
    return r.randrange(min(n, r.choice((16, 64, 300, n, n))))

def put(r, a, at, size, value=None):
    "A number of `size` bytes, in either order"
    value = r.choice((r.choice(ODD), r.randrange(2**32))) if value is None else value
    a[at:at+size] = (value % 256**size).to_bytes(size, r.choice(('little', 'big')))

def bits(r, a, others):
    for _ in range(r.choice((1, 1, 2, 8, 40))):
        a[place(r, a)] ^= 1 << r.randrange(8)

def values(r, a, others):
    for _ in range(r.choice((1, 1, 2, 4))): put(r, a, place(r, a), r.choice((1, 2, 4, 8)))

def cut(r, a, others): del a[place(r, a):]
def remove(r, a, others):
    at = place(r, a)
    del a[at:at + r.choice((1, 2, 4, r.randrange(1, 200)))]

def insert(r, a, others):
    at,n = place(r, a),r.choice((1, 2, 4, r.randrange(1, 3000)))
    a[at:at] = r.choice((bytes(n), b'\xff'*n, r.randbytes(n), a[at:at+n]))

def swap(r, a, others):
    n = r.choice((2, 4, 16, 64))
    i,j = place(r, a),place(r, a)
    a[i:i+n],a[j:j+n] = a[j:j+n],a[i:i+n]

def splice(r, a, others):
    b = r.choice(others)
    i,j = place(r, a),place(r, b)
    a[i:] = b[j if r.random() < .5 else i:]

def cross(r, a, others):
    "A piece of another file over this one"
    b,n = r.choice(others),r.choice((4, 16, 100, 1000))
    j = place(r, b)
    at = place(r, a)
    a[at:at+n] = b[j:j+n]

def png_chunks(r, a, others):
    "Chunks changed, moved, doubled or dropped, each with a right checksum"
    chunks,at = [],8
    while at + 12 <= len(a):
        n, = struct.unpack('>I', a[at:at+4])
        chunks.append((bytes(a[at+4:at+8]), bytearray(a[at+8:at+8+n])))
        at += 12 + n
    for _ in range(r.choice((1, 1, 2, 3))):
        i = r.randrange(len(chunks))
        kind,body = chunks[i]
        act = r.randrange(6)
        if act == 0: chunks[i:i+1] = []
        elif act == 1: chunks.insert(r.randrange(len(chunks) + 1), chunks[i])
        elif act == 2: chunks.insert(r.randrange(len(chunks)), chunks.pop(i))
        elif act == 3: chunks[i] = r.choice(KINDS),body
        elif kind == b'IDAT' and act == 4: chunks[i] = kind,bytearray(zlib.compress(r.randbytes(r.randrange(5000))))
        elif body: r.choice((bits, values, cut, insert))(r, body, others)
        if not chunks: break
    pack = lambda k,d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))
    a[8:] = b''.join(pack(k, bytes(d)) for k,d in chunks)

def jpeg_segments(r, a, others):
    "Markers changed, and lengths"
    heads = [i for i in range(len(a) - 4) if a[i] == 255 and 0xc0 <= a[i+1] < 0xff]
    for _ in range(r.choice((1, 1, 2))):
        at = r.choice(heads)
        act = r.randrange(4)
        if act == 0: a[at+1] = r.randrange(0xc0, 0xff)
        elif act == 1: put(r, a, at + 2, 2)
        elif act == 2: a[at+4+r.randrange(20):at+4+r.randrange(20)] = r.randbytes(1)
        else: a[at:at] = a[at:at + 2 + int.from_bytes(a[at+2:at+4], 'big')]

def tiff_tags(r, a, others):
    "An entry of the first folder gets another tag, type, count or value"
    order = '<' if a[:1] == b'I' else '>'
    first, = struct.unpack(order + 'I', a[4:8])
    if a[2:4] in (b'+\0', b'\0+') or first + 14 > len(a): return values(r, a, others)
    n, = struct.unpack(order + 'H', a[first:first+2])
    for _ in range(r.choice((1, 1, 2, 3))):
        at = first + 2 + 12*r.randrange(max(1, n))
        what = r.choice((0, 2, 4, 8, 8))
        value = r.choice((r.choice(ODD), r.randrange(20), r.randrange(2**16)))
        if what == 0: value = r.choice(TAGS)
        size = 2 if what < 4 or r.random() < .5 else 4
        a[at+what:at+what+size] = (value % 256**size).to_bytes(size, 'little' if order == '<' else 'big')

def boxes(r, a, others):
    "Lengths and kinds of boxes (AVIF, HEIC, JPEG 2000) and of chunks (WebP)"
    known = (b'meta iloc iinf infe iprp ipco ipma ispe pixi colr av1C hvcC mdat ihdr jp2h jp2c ftyp '
             b'VP8X VP8L ICCP EXIF ANIM ANMF').split()
    found = [i for k in known if (i := a.find(k)) >= 0]
    if not found: return values(r, a, others)
    at = r.choice(found)
    act = r.randrange(3)
    if act == 0: put(r, a, at - 4 if a[:4] != b'RIFF' else at + 4, 4)
    elif act == 1: a[at:at+4] = r.choice(known)
    else: put(r, a, at + 4 + r.randrange(24), r.choice((1, 2, 4)))

def special(a):
    "What is made for this format"
    if a[:4] == b'\x89PNG': return png_chunks
    if a[:2] == b'\xff\xd8': return jpeg_segments
    return tiff_tags if a[:2] in (b'II', b'MM') else boxes

def mutated(seed, i, files):
    "File `i`: its name and bytes"
    r = random.Random(f'{seed} {i}')
    name = r.choice(list(files))
    a,others = bytearray(files[name]),list(files.values())
    for _ in range(r.choice((1, 1, 1, 2, 3))):
        if not a: break
        kind = r.choice((bits, values, cut, remove, insert, swap, splice, cross, *[special(a)]*4))
        try: kind(r, a, others)
        except (IndexError, struct.error, ValueError):   # its structure is gone by now
            if a: bits(r, a, others)
    return name,bytes(a)

# ---- what has to hold

def one_sentence(e):
    "What is wrong with a `PhotoError`, or an empty text"
    text = str(e)
    if not text.startswith(f'{e.name}: '): return f'does not begin with the file: {text!r}'
    reason = text.removeprefix(f'{e.name}: ')
    if not reason.endswith('.') or len(reason) < 8 or len(reason) > 400: return f'no sentence: {reason!r}'
    return '' if all(o.isprintable() for o in reason) else f'not printable: {reason!r}'

def check(path):
    "'read', 'refused', or what is wrong"
    from fastai_colorize.base.headers import is_photo
    from fastai_colorize.base.photos import PhotoError, open_photo, photo_size
    try:
        known = is_photo(path)
        p = open_photo(path)
    except PhotoError as e: return one_sentence(e) or 'refused'
    h,w,_ = p.rgb.shape
    if not known: return 'read, and is_photo does not know it'
    if p.rgb.dtype != 'uint8' or p.rgb.shape[2] != 3 or not w*h: return 'read as no picture'
    if p.alpha is not None and p.alpha.shape != (h,w): return 'read as no picture'
    if photo_size(path) != (w,h): return f'photo_size says {photo_size(path)}, the picture has {(w,h)}'
    return 'read'

def check_folder(paths, out):
    "The same for files that are coloured together; a list"
    import torch
    from fastai_colorize.base.photos import PhotoError, open_photo
    from fastai_colorize.use import folders   # gives `Colorizer` the method
    from fastai_colorize.use.colorizer import Colorizer
    class Steady(torch.nn.Module):
        def forward(self, l): return torch.cat([l*0 + .05, l*0 - .1], 1)
    report = Colorizer(Steady(), 32).colorize_files(paths, out).astype({'file': str}).set_index('file')
    def of(path):
        if str(path) not in report.index: return 'no row for it'
        row = report.loc[str(path)]
        if row.reason: return one_sentence(PhotoError('a', row.reason)) or 'refused'
        try: same = open_photo(row.result).size == open_photo(path).size
        except PhotoError as e: return f'its result cannot be read: {e}'
        return 'coloured' if same else 'its result has another size'
    return [of(o) for o in paths]

def work(args):
    "Of the watched process: a line before and after each file"
    resource.setrlimit(resource.RLIMIT_AS, (args.memory*2**20,)*2)
    warnings.simplefilter('ignore')
    files,folder = valid_files(),Path(args.work)
    waiting = []
    def say(*words): print(*words, sep='\t', flush=True)
    def guarded(f, *more):
        try: return f(*more)
        except Exception as e:
            import traceback
            at = traceback.extract_tb(e.__traceback__)[-1]
            return f'{type(e).__name__}: {" ".join(str(e).split())} ({Path(at.filename).name}:{at.lineno})'
    for i in range(args.start, args.stop):
        name,data = mutated(args.seed, i, files)
        path = folder/f'{args.seed}_{i}.{name.rpartition(".")[2]}'
        path.write_bytes(data)
        say('begin', i)
        say('end', i, guarded(check, path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024)
        if i % 10: path.unlink()
        else: waiting.append((i, path))
        if waiting and (len(waiting) == 50 or i == args.stop - 1):
            say('folder begin', waiting[-1][0])
            res = guarded(check_folder, [o for _,o in waiting], folder/"out")
            for k,(j,o) in enumerate(waiting):
                mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024
                say('folder', j, res if isinstance(res, str) else res[k], mb)
                o.unlink()
            waiting = []

# ---- watching

def watch(args, start, stop, work_folder, seen):
    "Run files in a process; the number of the next one, where it crashed or hung"
    cmd = [sys.executable, __file__, '--work', work_folder, '--start', start, '--stop', stop,
           '--seed', args.seed, '--memory', args.memory]
    with open(Path(work_folder)/'stderr.txt', 'wb') as err:
        p = subprocess.Popen(list(map(str, cmd)), stdout=subprocess.PIPE, stderr=err)
    now,limit,buf = start,60,b''   # the first ones wait for the imports
    while True:
        if not select.select([p.stdout], [], [], limit)[0]:
            p.kill()
            p.wait()
            seen(now, f'hangs: more than {limit:g} s')
            return now + 1
        data = p.stdout.read1()
        if not data: break
        *lines,buf = (buf + data).split(b'\n')
        for line in lines:
            kind,i,*rest = line.decode().split('\t')
            now = int(i)
            if kind.endswith('begin'): limit = args.limit*(5 if now < start + 3 or 'folder' in kind else 1)
            else: seen(now, rest[0], int(rest[1]), kind)
    if p.wait():
        tail = (Path(work_folder)/'stderr.txt').read_text(errors='replace').strip().splitlines()[-1:]
        seen(now, f'the process ended with status {p.returncode} {tail}')
        return now + 1
    return stop

def main():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('--n', type=int, default=10_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', type=int, help='this file alone')
    parser.add_argument('--limit', type=float, default=20, help='seconds a file')
    parser.add_argument('--memory', type=int, default=8000,
                        help='MB of address space (the libraries alone map three thousand)')
    parser.add_argument('--keep', type=Path, default='faults')
    for o in ('--work', '--start', '--stop'):
        parser.add_argument(o, type=str if o == '--work' else int, help='of the watched process')
    args = parser.parse_args()
    if args.work: return work(args)
    files,kinds,faults,peak = valid_files(),Counter(),{},[0]
    def seen(i, what, mb=0, kind='end'):
        kinds[what if what in ('read', 'refused', 'coloured') else 'faults'] += 1
        peak[0] = max(peak[0], mb)
        if what in ('read', 'refused', 'coloured'): return
        name,data = mutated(args.seed, i, files)
        args.keep.mkdir(parents=True, exist_ok=True)
        kept = args.keep/f'{args.seed}_{i}.{name.rpartition(".")[2]}'
        kept.write_bytes(data)
        faults[kept.name] = what
        print(f'{kept} (from {name}): {what}', flush=True)
    begin = monotonic()
    at,stop = (0, args.n) if args.only is None else (args.only, args.only + 1)
    with tempfile.TemporaryDirectory() as folder:
        while at < stop: at = watch(args, at, stop, folder, seen)
    n = args.n if args.only is None else 1
    print(f'{n:,} files from {len(files)} valid ones, seed {args.seed}, {monotonic() - begin:.0f} s: {dict(kinds)}; '
          f'most memory {peak[0]} MB; {len(faults)} faults')
    return int(bool(faults))

if __name__ == '__main__': sys.exit(main())
