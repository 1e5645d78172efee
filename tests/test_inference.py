"Colorizer on every kind of photo, memory, batches, and folders with everything that strangers have in them"
import os,subprocess,sys
import numpy as np, pytest, torch, torch.nn.functional as F
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock
from time import sleep
from types import SimpleNamespace
from PIL import Image
from skimage import data
from skimage.color import rgb2lab
from torch import nn
from fastai_colorize.base.photos import PhotoError, open_photo, save_photo
from fastai_colorize.base.pictures import contact_sheet, sample_photos
from fastai_colorize.nets.dynamic import resnet_unet
from fastai_colorize.nets.register import create_generator
from fastai_colorize.use import folders
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.use.painter import resize_rows
from fastai_colorize.use.folders import demo

class Stub(nn.Module):
    "One warm hue that depends on the place and on L; remembers the shapes that it saw"
    def __init__(self):
        super().__init__()
        self.conv,self.seen = nn.Conv2d(1, 2, 3, padding=1),[]
        with torch.no_grad(): self.conv.weight.mul_(.05); self.conv.bias.copy_(torch.tensor([.08, .2]))
    def forward(self, l): self.seen.append(tuple(l.shape)); return self.conv(l)

class Steady(nn.Module):
    "The same colour everywhere"
    def forward(self, l): return torch.cat([l*0 + .05, l*0 - .1], 1)

CAT = Image.fromarray(data.chelsea()).resize((226,150), Image.Resampling.BOX)

@pytest.fixture
def col(): torch.manual_seed(0); return Colorizer(Stub())

# ---- one photo

@pytest.mark.parametrize('size', [(1,1), (1,500), (500,1), (7,5), (33,64), (640,480), (480,640), (1500,100)])
def test_any_size(col, size):
    im = CAT.resize(size)
    res = col.colorize(im)
    assert res.size == size and res.mode == 'RGB'
    b,c,h,w = col.model.seen[-1]
    assert (b,c) == (1,1) and h%32 == w%32 == 0 and 256**2/2 < h*w < 256**2*1.5

def test_lightness_is_the_photos_own():
    rgb = data.astronaut()
    res = np.asarray(Colorizer(Steady()).colorize(rgb))
    L,want = rgb2lab(res)[...,0],rgb2lab(rgb)[...,0]
    inside = ((res > 0) & (res < 255)).all(2)                     # not clamped
    assert inside.mean() > .5 and np.abs(L - want)[inside].max() < .6   # 8-bit rounding
    grey = rgb2lab(data.camera()[...,None].repeat(3, 2))
    ab = rgb2lab(np.asarray(Colorizer(Steady()).colorize(data.camera())))[...,1:]
    mid = (grey[...,0] > 40) & (grey[...,0] < 70)
    assert np.abs(ab[mid] - [.05*110, -.1*110]).mean() < .5        # the colour is what the network said

def test_two_at_a_time():
    "fastai's U-Net hands features over through hooks; threads do not get each other's"
    torch.manual_seed(0)
    col,ims = Colorizer(resnet_unet('resnet18', pretrained=False), 32),[CAT.rotate(45*i) for i in range(8)]
    want = [np.asarray(col.colorize(o)) for o in ims]
    with ThreadPoolExecutor(8) as ex: got = list(ex.map(col.colorize, ims*4))
    for a,b in zip(want*4, got): np.testing.assert_array_equal(a, b)

MEET = Barrier(2, timeout=20)

class Together(Steady):
    "A network that goes on when two threads are in it"
    def forward(self, l):
        MEET.wait()
        return super().forward(l)

def test_networks_work_side_by_side():
    "A network that can be copied needs no lock: its twins have the same weights"
    col = Colorizer(Together(), 32)
    with ThreadPoolExecutor(2) as ex: a,b = ex.map(col.colorize, [CAT]*2)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

def test_networks_that_need_no_lock():
    "Who says `thread_safe` is called by two threads at once; who does not, and cannot be copied, one after the other"
    class Slow(Steady):
        def __init__(self): super().__init__(); self.inside,self.most,self.count = 0,0,Lock()
        def forward(self, l):
            with self.count: self.inside += 1; self.most = max(self.most, self.inside)
            sleep(.1)
            with self.count: self.inside -= 1
            return super().forward(l)
    def most_at_once(safe):
        net = Slow()
        if safe: net.thread_safe = True
        col = Colorizer(net, 32)
        with ThreadPoolExecutor(4) as ex: list(ex.map(col.colorize, [CAT]*4))
        return net.most
    assert most_at_once(False) == 1 and most_at_once(True) > 1
    light = Colorizer(create_generator('light', pretrained=False), 64)
    assert not isinstance(light.lock, type(Lock()))
    want = np.asarray(light.colorize(CAT))
    with ThreadPoolExecutor(4) as ex:
        for got in ex.map(light.colorize, [CAT]*8): np.testing.assert_array_equal(got, want)

LIGHT = '''
import sys
from fastai_colorize import Colorizer
from fastai_colorize.nets.register import create_generator
assert Colorizer(create_generator('light', pretrained=False), 64).colorize(sys.argv[1]).size == (226,150)
print(*{o.partition('.')[0] for o in sys.modules} & {'fastai', 'pandas', 'matplotlib', 'skimage', 'sklearn', 'IPython', 'torchvision'})
'''
def test_colours_without_fastai(tmp_path):
    CAT.convert('L').save(tmp_path/'a.png')
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', LIGHT, str(tmp_path/'a.png')], capture_output=True, text=True)
    assert (out.returncode, out.stdout.strip()) == (0, ''), out.stderr

def test_help_tells_it_whole():
    for o in (Colorizer, Colorizer.from_pretrained, Colorizer.from_learner, Colorizer.colorize, Colorizer.colorize_batch, Colorizer.colorize_files):
        assert len(o.__doc__.splitlines()) > 3
    assert 'PhotoError' in Colorizer.colorize.__doc__ and 'FileNotFoundError' in Colorizer.from_pretrained.__doc__

def test_saturation(col):
    chroma = lambda s: np.hypot(*rgb2lab(np.asarray(col.colorize(CAT, saturation=s)))[...,1:].transpose(2,0,1)).mean()
    assert chroma(.5) < chroma(1) < chroma(1.5) and abs(chroma(.5)/chroma(1) - .5) < .05
    for im in (CAT, data.astronaut(), data.camera()):
        grey = np.asarray(col.colorize(im, saturation=0))
        assert np.ptp(grey, 2).max() == 0
    assert np.abs(grey[...,0].astype(int) - data.camera()).max() <= 1
    for bad in (-1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='saturation'): col.colorize(CAT, saturation=bad)

def test_strips_are_the_whole(col, monkeypatch):
    big = data.astronaut()
    whole = np.asarray(col.colorize(big)).astype(int)
    small = col.prepare(big, None)[1]
    ab = F.interpolate(col.predict_ab([small]), (512,512), mode='bicubic', align_corners=False)[0]
    ref = merge_lab_ref(big, ab)
    assert np.abs(whole - ref).max() <= 1

def merge_lab_ref(rgb, ab):
    "By skimage, in float64"
    from skimage.color import lab2rgb
    import warnings
    lab = rgb2lab(rgb); lab[...,1:] = ab.permute(1,2,0).double().numpy()*110
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return (lab2rgb(lab)*255).round().astype(int)

@pytest.mark.parametrize('h,H', [(7,50), (7,3), (32,1), (1,9), (64,64)])
def test_resize_rows(h, H):
    x = torch.randn(2, h, 5, dtype=torch.float64)
    want = F.interpolate(x[None], (H,5), mode='bicubic', align_corners=False)[0]
    for step in (1, 4, H):
        got = torch.cat([resize_rows(x, H, i, min(i + step, H)) for i in range(0, H, step)], -2)
        assert (got - want).abs().max() < 1e-10

def test_what_the_network_sees(col):
    "The photo resized as for training, then L"
    class Spy(nn.Module):
        def forward(self, l): self.l = l; return l.repeat(1, 2, 1, 1)*0
    spy = Spy()
    Colorizer(spy, 128).colorize(data.astronaut())
    want = rgb2lab(np.asarray(Image.fromarray(data.astronaut()).resize((128,128), Image.Resampling.BICUBIC)))[...,0]/50 - 1
    assert type(spy.l) is torch.Tensor and spy.l.shape == (1,1,128,128) and np.abs(spy.l[0,0].numpy() - want).max() < 1e-5
    col.colorize(data.astronaut()); assert col.model.seen[-1] == (1,1,256,256)
    col.colorize(data.astronaut(), render_size=64); assert col.model.seen[-1] == (1,1,64,64)
    for bad in (0, -5, 16):
        with pytest.raises(ValueError, match='render_size'): col.colorize(CAT, render_size=bad)

def test_models_of_fixed_size():
    m = Stub(); m.size = 128
    Colorizer(m).colorize(CAT)
    assert m.seen[-1][-2] % 128 == m.seen[-1][-1] % 128 == 0

@pytest.mark.parametrize('mode', ['L', 'LA', '1', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16', 'F'])
def test_modes(col, tmp_path, mode):
    im = Image.fromarray(np.asarray(CAT.convert('L')).astype(np.uint16)*257) if mode == 'I;16' else CAT.convert('L').convert(mode) if mode in ('F', 'LA') else CAT.convert(mode)
    if mode in ('LA', 'RGBA'): im.putalpha(CAT.getchannel('R'))
    im.save(tmp_path/'a.tif')
    res = col.colorize(tmp_path/'a.tif')
    assert res.size == CAT.size and res.mode == ('RGBA' if mode in ('LA', 'RGBA') else 'RGB')
    if res.mode == 'RGBA': assert (np.asarray(res.getchannel('A')) == np.asarray(CAT.getchannel('R'))).all()
    assert np.ptp(np.asarray(res)[...,:3], 2).mean() > 5

def test_models_are_left_as_they_should(col):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    c = Colorizer.from_learner(SimpleNamespace(model=net), render_size=64)
    with torch.no_grad(): net[0].weight.zero_()
    assert net.training and not c.model.training and c.model[0].weight.abs().sum() > 0
    c.colorize(CAT)
    assert net[1].num_batches_tracked == 0 and c.model[1].num_batches_tracked == 0
    half = Colorizer(Stub().bfloat16()).colorize(CAT)
    assert half.size == CAT.size

def test_broken_networks():
    class NaN(nn.Module):
        def forward(self, l): return l.expand(-1, 2, -1, -1)*float('nan')
    with pytest.raises(ValueError, match='NaN'): Colorizer(NaN()).colorize(CAT)
    with pytest.raises(ValueError, match='generator of ab'): Colorizer(nn.MaxPool2d(2)).colorize(CAT)
    with pytest.raises(ValueError, match='render_size'): Colorizer(Stub(), 8)

def test_pretrained_files(tmp_path):
    from fastai_colorize.nets.weights import create_generator, save_generator
    net = create_generator('unet', size=32)
    c = Colorizer.from_pretrained(save_generator(net, tmp_path/'u.safetensors'), render_size=64, device='cpu')
    assert c.colorize(CAT).size == CAT.size and c.multiple == 32
    torch.save(net.state_dict(), tmp_path/'pickled.pth')
    for f in ('pickled.pth',):
        with pytest.raises(ValueError): Colorizer.from_pretrained(tmp_path/f)
    for missing in ('no_such_name', tmp_path/'none.safetensors', str(tmp_path/'none')):
        with pytest.raises(FileNotFoundError): Colorizer.from_pretrained(missing)

MEMORY = '''
import resource,sys,numpy as np,torch
from torch import nn
from fastai_colorize.use.colorizer import Colorizer
class Stub(nn.Module):
    def forward(self, l): return torch.cat([l*0 + .1, l*0 + .3], 1)
c = Colorizer(Stub()); c.colorize(np.zeros((64,64,3), np.uint8))
rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == 'darwin' else 1024)
idle = rss()
assert c.colorize(sys.argv[1]).size == (4000,6000)
print((rss() - idle)/1e9)
'''
def test_memory_of_24_megapixels(tmp_path):
    exif = Image.Exif(); exif[0x112] = 6                          # turned as well, which costs a copy
    Image.fromarray(data.astronaut()).resize((6000,4000)).save(tmp_path/'a.jpg', exif=exif)
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', MEMORY, str(tmp_path/'a.jpg')], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert float(out.stdout) < 2

# ---- batches

def test_batch_order_and_groups(col, tmp_path):
    save_photo(CAT, tmp_path/'a.png'); (tmp_path/'bad.jpg').write_text('no')
    photos = [CAT, CAT.rotate(90, expand=True), tmp_path/'bad.jpg', tmp_path/'a.png', np.asarray(CAT), None, CAT.resize((500,20)), CAT]
    want = [None if i in (2,5) else np.asarray(col.colorize(p)) for i,p in enumerate(photos)]
    for bs in (1, 3, 8, 50):
        col.model.seen.clear()
        got = list(col.colorize_batch(iter(photos), bs=bs, workers=3))
        for g,w in zip(got, want, strict=True):
            if w is None: assert isinstance(g, PhotoError)
            else: assert np.abs(np.asarray(g).astype(int) - w).max() <= 1
    assert [s[0] for s in col.model.seen] == [4, 1, 1]
    assert list(col.colorize_batch([])) == []

def test_batch_is_lazy(col):
    opened = []
    def photos():
        for i in range(100): opened.append(i); yield CAT
    gen = col.colorize_batch(photos(), bs=4)
    next(gen); gen.close()
    assert len(opened) <= 8

# ---- folders

def tree(root): return sorted(f.relative_to(root).as_posix() for f in root.rglob('*') if f.is_file())

@pytest.fixture
def album(tmp_path):
    src = tmp_path/'album'
    (src/'summer'/'beach').mkdir(parents=True); (src/'.thumbs').mkdir()
    exif = Image.Exif(); exif[0x112],exif[0x10f] = 6,'maker'
    CAT.save(src/'A.JPG', exif=exif); CAT.convert('L').save(src/'summer'/'b.png'); CAT.save(src/'summer'/'c.webp'); CAT.save(src/'summer'/'beach'/'d.tiff')
    CAT.convert('P').save(src/'summer'/'beach'/'e.gif'); CAT.save(src/'f.bmp'); CAT.save(src/'.thumbs'/'x.jpg')
    rgba = CAT.copy(); rgba.putalpha(CAT.getchannel('G')); rgba.save(src/'g.png')
    return src

RESULTS = ['A.JPG', 'f.bmp.png', 'g.png', 'summer/b.png', 'summer/beach/d.tiff', 'summer/beach/e.gif.png', 'summer/c.webp']

def snapshot(root): return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in root.rglob('*') if f.is_file()}

def test_tree_exif_alpha(col, album, tmp_path):
    before = snapshot(album)
    report = col.colorize_files(album, tmp_path/'out')
    assert list(report.columns) == ['file', 'result', 'reason', 'note'] and (report.note == '').all() and (report.reason == '').all() and report.result.notna().all()
    assert tree(tmp_path/'out') == RESULTS and snapshot(album) == before
    a = Image.open(tmp_path/'out'/'A.JPG')
    assert a.format == 'JPEG' and a.size == CAT.size[::-1] and dict(a.getexif()).keys() == {0x10f, 11}
    assert a.getexif()[0x10f] == 'maker' and a.getexif()[11].startswith('fastai_colorize ')
    assert (np.asarray(Image.open(tmp_path/'out'/'g.png'))[...,3] == np.asarray(CAT)[...,1]).all()
    for f,fmt in {'f.bmp.png':'PNG', 'summer/c.webp':'WEBP', 'summer/beach/d.tiff':'TIFF'}.items(): assert Image.open(tmp_path/'out'/f).format == fmt
    assert np.ptp(open_photo(tmp_path/'out'/'summer'/'b.png').rgb, 2).mean() > 5

def test_goes_on_and_overwrites_on_demand(col, album, tmp_path):
    out = tmp_path/'out'
    col.colorize_files(album, out)
    (out/'g.png').unlink(); old = snapshot(out)
    report = col.colorize_files(album, out)
    assert sorted(report.reason) == [''] + ['exists already']*6 and report.result.notna().all()
    assert tree(out) == RESULTS and all(snapshot(out)[f] == v for f,v in old.items())
    report = col.colorize_files(album, out, overwrite=True, saturation=0)
    assert (report.reason == '').all() and np.ptp(open_photo(out/'summer'/'b.png').rgb, 2).max() == 0

def test_bad_files_do_not_stop(col, album, tmp_path):
    (album/'a text.jpg').write_text('text'); (album/'summer'/'empty.png').touch()
    whole = (album/'A.JPG').read_bytes(); (album/'cut.jpg').write_bytes(whole[:len(whole)//2])
    report = col.colorize_files([album, tmp_path/'nowhere', tmp_path/'void.jpg'], tmp_path/'out')
    bad = report[report.result.isna()].set_index('file').reason
    assert {f.name: next(w for w in ('not an image', 'is empty', 'broken', 'no such file') if w in r) for f,r in bad.items()} == {
        'a text.jpg':'not an image', 'empty.png':'is empty', 'cut.jpg':'broken', 'nowhere':'no such file', 'void.jpg':'no such file'}
    assert tree(tmp_path/'out') == RESULTS

@pytest.mark.parametrize('how', ['same', 'symlink', 'parent', 'hardlink', 'inner link'])
def test_sources_are_never_overwritten(col, album, tmp_path, how):
    before = {f: v for f,v in snapshot(album).items()}
    out,paths = album,album
    if how == 'symlink': out = tmp_path/'link'; out.symlink_to(album)
    if how == 'parent': out,paths = tmp_path,[*(album).glob('*.png')]; os.link(album/'g.png', tmp_path/'g.png')
    if how == 'hardlink': out = tmp_path/'out'; (out/'summer').mkdir(parents=True); os.link(album/'summer'/'b.png', out/'summer'/'b.png')
    if how == 'inner link': out = tmp_path/'out'; out.mkdir(); (out/'summer').symlink_to(album/'summer')
    report = col.colorize_files(paths, out, overwrite=True)
    assert report.reason.str.contains('overwrite the source').any()
    now = snapshot(album)
    assert all(now[f] == v for f,v in before.items())

def test_results_inside_the_source_folder(col, album):
    col.colorize_files(album, album/'coloured')
    report = col.colorize_files(album, album/'coloured')
    assert tree(album/'coloured') == RESULTS and (report.reason == 'exists already').all()

def test_collisions(col, album, tmp_path):
    (tmp_path/'two').mkdir(); CAT.save(tmp_path/'two'/'g.png'); CAT.save(album/'summer'/'beach'/'e.gif.png')
    report = col.colorize_files([album, tmp_path/'two'], tmp_path/'out')
    bad = report[report.result.isna()]
    assert sorted(f.name for f in bad.file) in (['e.gif', 'g.png'], ['e.gif.png', 'g.png']) and bad.reason.str.contains('already that of').all()
    twice = col.colorize_files([album/'A.JPG', album/'A.JPG'], tmp_path/'out2')
    assert len(twice) == 1 and twice.reason[0] == ''

def test_single_files(col, album, tmp_path):
    (album/'noname').write_bytes((album/'g.png').read_bytes())
    report = col.colorize_files([album/'A.JPG', str(album/'noname')], tmp_path/'out')
    assert tree(tmp_path/'out') == ['A.JPG', 'noname.png'] and (report.reason == '').all()

def test_out_that_cannot_be(col, album, tmp_path):
    (tmp_path/'file').touch()
    with pytest.raises(PhotoError, match='folder of the results'): col.colorize_files(album, tmp_path/'file')
    with pytest.raises(PhotoError, match='folder of the results'): col.colorize_files(album, tmp_path/'file'/'deeper')

def test_alpha_in_a_jpeg_name(col, album, tmp_path):
    (album/'really a png.jpg').write_bytes((album/'g.png').read_bytes())
    report = col.colorize_files(album/'really a png.jpg', tmp_path/'out')
    assert 'transparency' in report.reason[0] and report.result.isna().all()

def test_full_disk(col, album, tmp_path, monkeypatch):
    import errno
    calls = []
    def replace(a, b):
        calls.append(b)
        if len(calls) == 2: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.rename(a, b)
    monkeypatch.setattr(os, 'replace', replace)
    report = col.colorize_files(album, tmp_path/'out')
    bad = report[report.result.isna()]
    assert len(bad) == 1 and 'No space left' in bad.reason.iloc[0]
    assert len(tree(tmp_path/'out')) == len(RESULTS) - 1

def test_ctrl_c_leaves_whole_results(col, album, tmp_path, monkeypatch):
    real,n = folders.save_photo,[]
    def save(*args, **kw):
        n.append(1)
        if len(n) == 4: raise KeyboardInterrupt
        return real(*args, **kw)
    monkeypatch.setattr(folders, 'save_photo', save)
    with pytest.raises(KeyboardInterrupt): col.colorize_files(album, tmp_path/'out')
    monkeypatch.undo()
    assert len(tree(tmp_path/'out')) == 3
    for f in (tmp_path/'out').rglob('*.*'): open_photo(f)
    report = col.colorize_files(album, tmp_path/'out')
    assert sorted(report.reason) == ['']*4 + ['exists already']*3 and tree(tmp_path/'out') == RESULTS

def test_a_network_that_fails_is_reported(album, tmp_path):
    class Moody(nn.Module):
        def forward(self, l):
            if l.shape[-1] < l.shape[-2]: raise RuntimeError('CUDA error: out of memory\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1')
            return l.repeat(1, 2, 1, 1)*.1
    report = Colorizer(Moody()).colorize_files(album, tmp_path/'out')
    assert report[report.result.isna()].reason.tolist() == ['CUDA error: out of memory']   # A.JPG, the portrait

# ---- demo

def test_samples_and_sheet(col, tmp_path):
    photos = sample_photos()
    assert list(photos) == ['astronaut', 'chelsea', 'coffee', 'rocket', 'china', 'flower', 'grace_hopper', 'camera']
    assert (photos['astronaut'] == data.astronaut()).all() and (photos['camera'][...,1] == data.camera()).all()
    path = demo(col, tmp_path/'sheets'/'demo.png')
    assert path == tmp_path/'sheets'/'demo.png' and Image.open(path).width > 1000
    with pytest.raises(PhotoError, match='must end in'): contact_sheet({'a':[CAT]*3}, tmp_path/'x.xyz')
    contact_sheet({'one':[CAT, CAT.convert('L'), CAT]}, tmp_path/'one.jpg')

# ---- memory

class Plain(torch.nn.Module):
    def forward(self, l): return l.repeat(1, 2, 1, 1)*.1

def test_no_more_pixels_than_fit(monkeypatch, tmp_path):
    "Nine small files of many pixels: those in memory are within the budget, one that is larger than it is there alone"
    import fastai_colorize.use.colorizer as module
    monkeypatch.setattr(module, 'pixel_budget', lambda: 5_000_000)
    sizes = [(1000, 1000)]*4 + [(3000, 2000)] + [(1000, 1000)]*4
    for i,size in enumerate(sizes): Image.new('RGB', size, (i*20, 90, 30)).save(tmp_path/f'{i}.png')
    files,held,most = [tmp_path/f'{i}.png' for i in range(9)],[],[]
    colorizer = Colorizer(Plain(), 32)
    prepare = colorizer.prepare
    def counted(photo, *args):
        held.append(sizes[files.index(photo)])
        most.append(list(held))
        return prepare(photo, *args)
    monkeypatch.setattr(colorizer, 'prepare', counted)
    for i,(photo,res) in enumerate(colorizer.stream(files, 8, workers=1)):
        assert res.size == sizes[i]
        held.remove(sizes[i])
    pixels = [sum(w*h for w,h in o) for o in most]
    assert len(most) == 9 and all(n <= 5_000_000 or len(o) == 1 for n,o in zip(pixels, most)), most

def test_no_memory_is_tried_alone_and_said(monkeypatch, tmp_path):
    import fastai_colorize.use.hints as module            # where photos are opened, with their hints
    for i in range(3): Image.new('RGB', (40 + i, 32)).save(tmp_path/f'{i}.png')
    opened = []
    def scarce(photo, real=module.open_photo):
        opened.append(photo.name)
        if photo.name == '1.png' or (photo.name == '0.png' and opened.count('0.png') == 1): raise MemoryError
        return real(photo)
    monkeypatch.setattr(module, 'open_photo', scarce)
    res = [o for _,o in Colorizer(Plain(), 32).stream([tmp_path/f'{i}.png' for i in range(3)])]
    assert res[0].size == (40, 32) and res[2].size == (42, 32) and opened.count('0.png') == opened.count('1.png') == 2
    assert str(res[1]).startswith(f'{tmp_path}/1.png: out of memory')
