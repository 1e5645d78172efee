"Loading: the cache, several folders, COCO; disks and files that fail."
import json, os, re, subprocess, sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pytest, torch
from PIL import Image

from fastai_colorize.base.color import split_lab
from fastai_colorize.base.photos import PhotoError, find_photos, open_photo
from fastai_colorize.base.usable import check_photos
from fastai_colorize.data import cache
from fastai_colorize.data.cache import LoadPhoto, PhotoCache
from fastai_colorize.data.loaders import ColorDataLoaders

KW = dict(size=32, bs=4, num_workers=0)

def test_from_coco(photo_folder, tmp_path):
    "Chosen by pycocotools; what is there already and whole is not downloaded again"
    files,images = find_photos([photo_folder]),[]
    (tmp_path/'coco').mkdir()
    for i,f in enumerate(files):
        im = Image.open(f).resize((100 + i, 80))
        im.save(tmp_path/'coco'/f'{i:012d}.jpg')
        images.append(dict(id=i, file_name=f'{i:012d}.jpg', width=100 + i, height=80, coco_url=f'http://127.0.0.1:9/{i:012d}.jpg'))
    cats = [dict(id=1, name='cat'), dict(id=2, name='cup')]
    anns = [dict(id=i, image_id=i, category_id=1 + i % 2, bbox=[0,0,9,9], area=81, iscrowd=0) for i in range(len(files))]
    (tmp_path/'a.json').write_text(json.dumps(dict(images=images, annotations=anns, categories=cats)))
    a,b = [ColorDataLoaders.from_coco(tmp_path/'a.json', tmp_path/'coco', n=8, categories='cat', **KW) for _ in range(2)]
    assert list(a.train_ds.items) == list(b.train_ds.items) and len(a.train_ds) + len(a.valid_ds) == 8
    assert all(int(Path(f).stem) % 2 == 0 for f in a.train_ds.items)
    big = ColorDataLoaders.from_coco(tmp_path/'a.json', tmp_path/'coco', min_size=80, **KW)
    assert len(big.train_ds) + len(big.valid_ds) == len(files)
    with pytest.raises(ValueError): ColorDataLoaders.from_coco(tmp_path/'a.json', tmp_path/'coco', min_size=81, n=1, **KW)

# ---- the cache

def test_cache_on_a_full_disk(photo_folder, tmp_path, monkeypatch):
    "One sentence, and nothing under the final name or beside it"
    import builtins
    real = open
    class Full:
        def __init__(self, f): self.f = f
        def __enter__(self): return self
        def __exit__(self, *args): self.f.close()
        def write(self, b):
            if len(b) > 1000: raise OSError(28, 'No space left on device')
            return self.f.write(b)
    def full_open(f, *a, **k): return Full(real(f, *a, **k)) if str(f).endswith('.part') else real(f, *a, **k)
    monkeypatch.setattr(builtins, 'open', full_open)
    with pytest.raises(OSError, match='photos_32_.* cannot be written: No space left'):
        PhotoCache.build(find_photos([photo_folder]), 32, tmp_path)
    assert not list(tmp_path.iterdir())

def test_cache_that_will_not_fit_is_not_begun(photo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache, 'disk_usage', lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r'The cache needs 0\.1 MB in .*, and 0\.0 MB are free'):
        PhotoCache.build(find_photos([photo_folder]), 32, tmp_path)
    assert not list(tmp_path.iterdir()) and 'photos are new. At 32 pixels they take 0.1 MB' in capsys.readouterr().out

def copies(source, dest, n=None):
    "A folder with copies of the photos in another"
    dest.mkdir(parents=True)
    for i,f in enumerate(find_photos([source])[:n]): (dest/f'{i}.png').write_bytes(f.read_bytes())
    return find_photos([dest])

def test_cache_survives_an_added_folder_and_photo(photo_folder, tmp_path, monkeypatch):
    "Only what is new is decoded; a changed photo is decoded again; the order of the files does not matter"
    a,b = copies(photo_folder, tmp_path/'a', 10),copies(photo_folder, tmp_path/'b', 5)
    PhotoCache.build(a, 32, tmp_path/'cache')
    decoded = []
    monkeypatch.setattr(cache, 'open_photo', lambda f: decoded.append(Path(f)) or open_photo(f))
    both = PhotoCache.build(b + a, 32, tmp_path/'cache', workers=1)
    assert decoded == b
    decoded.clear()
    a[3].write_bytes(b[4].read_bytes() + b' ')
    more = PhotoCache.build(a[::-1], 32, tmp_path/'cache')
    assert decoded == [a[3]] and len(list((tmp_path/'cache').iterdir())) == 3
    monkeypatch.undo()
    for c,files in ((both, b + a[:3]), (more, a)):
        assert (c[files] == np.stack([LoadPhoto(32)(f).numpy() for f in files])).all()

def test_cache_knows_a_folder_by_its_place(photo_folder, tmp_path, monkeypatch, capsys):
    "A relative path is the same photo"
    files = copies(photo_folder, tmp_path/'a', 4)
    PhotoCache.build(files, 32, tmp_path/'cache')
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    relative = [o.relative_to(tmp_path) for o in files]
    assert PhotoCache.build(relative, 32, 'cache')[relative].shape == (4, 3, 32, 32) and not capsys.readouterr().out

KILLED = """
import os, sys
from fastai_colorize.data import cache
cache._PART = 4*3*32*32
done = []
real = cache.open_photo
def slow(f):
    done.append(f)
    if len(done) > 9: os.kill(os.getpid(), 9)
    return real(f)
cache.open_photo = slow
cache.PhotoCache.build(cache.Path(sys.argv[1]).glob('*.png'), 32, sys.argv[2], workers=1)
"""

def test_cache_of_a_killed_process(photo_folder, tmp_path, capsys):
    "What was finished is kept, the rest is decoded by the next, and the leftover goes when it is old"
    files,folder = copies(photo_folder, tmp_path/'a', 12),tmp_path/'cache'
    res = subprocess.run([sys.executable, '-c', KILLED, tmp_path/'a', folder], capture_output=True, cwd=Path(__file__).parent.parent)
    assert res.returncode == -9
    kept,parts = list(folder.glob('photos*')),list(folder.glob('.*.part'))
    assert len(parts) <= 1 and len(kept) <= 2
    for o in parts: os.utime(o, (0, 0))
    c = PhotoCache.build(files, 32, folder)
    assert f'Cache: {12 - 4*len(kept)} of 12 photos are new' in capsys.readouterr().out and not list(folder.glob('.*'))
    assert (c[files] == np.stack([LoadPhoto(32)(f).numpy() for f in files])).all()

def test_cache_of_the_first_release_is_not_used(photo_folder, tmp_path):
    files = find_photos([photo_folder])
    (tmp_path/'photos_32_0123456789ab.npy').write_bytes(b'anything')
    assert len(PhotoCache.build(files, 32, tmp_path)) == len(files)

def test_cache_that_shrinks_while_it_is_read(photo_folder, tmp_path):
    "A sentence, not the end of the process"
    files = find_photos([photo_folder])
    c = PhotoCache.build(files, 32, tmp_path)
    path = next(tmp_path.glob('photos*'))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=f'The cache {re.escape(str(path))} is damaged.*delete this file'): c[files]
    with pytest.raises(ValueError, match='is damaged'): ColorDataLoaders.from_folder(photo_folder, cache=tmp_path, **KW)

def test_reading_the_cache_does_not_fill_the_memory(tmp_path):
    "100 MB of pixels are read, and the process does not grow by 20"
    if not Path('/proc/self/status').exists(): pytest.skip('needs /proc')
    Image.effect_noise((128, 128), 90).convert('RGB').save(tmp_path/'0.png')
    for i in range(1, 2100): (tmp_path/f'{i}.png').symlink_to(tmp_path/'0.png')
    files = find_photos([tmp_path])
    c = PhotoCache.build(files, 128, tmp_path/'cache')
    memory = lambda: int(next(o for o in open('/proc/self/status') if o.startswith('VmRSS')).split()[1])/1024
    c[files[:32]]
    before = memory()
    for i in range(0, len(files), 32): c[files[i:i+32]]
    assert memory() - before < 20

def test_photos_are_looked_at_once(photo_folder, tmp_path, monkeypatch):
    files = copies(photo_folder, tmp_path/'a')
    Image.new('L', (40, 40), 90).save(tmp_path/'a'/'grey.png')
    kw = dict(cache=tmp_path/'cache', **KW)
    a = ColorDataLoaders.from_folder(tmp_path/'a', **kw)
    asked = []
    monkeypatch.setattr(cache, 'check_photos', lambda files: asked.extend(files) or check_photos(files))
    b = ColorDataLoaders.from_folder(tmp_path/'a', **kw)
    assert not asked and a.valid_ds.items == b.valid_ds.items and a.report.equals(b.report) and len(b.report) == len(files) + 1
    Image.new('L', (40, 40), 70).save(tmp_path/'a'/'other.png')
    c = ColorDataLoaders.from_folder(tmp_path/'a', **kw)
    assert asked == [tmp_path/'a'/'other.png'] and (c.report.reason == 'grey').sum() == 2

# ---- several folders

def test_the_split_of_the_first_release(photo_folder):
    "Order and members: trainings of the first release are resumed with it"
    dls = ColorDataLoaders.from_folder(photo_folder, seed=42, **KW)
    files = find_photos([photo_folder])
    n = len(files)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(42)).tolist()
    cut = int(.2*n)
    assert list(dls.valid_ds.items) == [files[i] for i in order[:cut]] and list(dls.train_ds.items) == [files[i] for i in order[cut:]]
    assert dls.config == dict(size=32, bs=4, min_scale=1., seed=42, train=n - cut, valid=cut)

@pytest.mark.parametrize('cached', [False, True])
def test_one_folder_with_weight_one_is_a_plain_folder(photo_folder, tmp_path, cached):
    kw = dict(cache=tmp_path if cached else None, **KW)
    a,b = [f(photo_folder, **kw) for f in (ColorDataLoaders.from_folder, ColorDataLoaders.from_folders)]
    assert a.config == b.config and a.path == b.path
    for o in (a, b): o.train.rng.seed(3)
    for (x1,y1),(x2,y2) in zip(a.valid, b.valid): assert torch.equal(x1, x2) and torch.equal(y1, y2)
    assert a.train.get_idxs() == b.train.get_idxs()

@pytest.mark.parametrize('unpaired', [False, True])
@pytest.mark.parametrize('weights', [(3, 1), (.25, 2.5), (.01, 1)])
def test_weights(photo_folder, tmp_path, weights, unpaired):
    "Each photo as often as its weight says, a part by chance, the same number of batches each epoch"
    folders = [tmp_path/'a', tmp_path/'b']
    for o in folders: copies(photo_folder, o, 10)
    dls = ColorDataLoaders.from_folders(folders, weights, unpaired=unpaired, cache=tmp_path/'cache', **KW)
    items,per = list(dls.train_ds.items),{o: w for o,w in zip(folders, weights)}
    total,epochs = 0,[]
    for _ in range(4):
        drawn = [o[1] if unpaired else o for o in dls.train.get_idxs()]
        counts = np.bincount(drawn, minlength=len(items))
        for folder,w in per.items():
            mine = counts[[o.parent == folder for o in items]]
            assert set(mine) <= {int(w), int(w) + 1} and mine.sum() == max(round(w*len(mine)), 1)
        epochs.append(drawn)
    assert len({len(o) for o in epochs}) == 1 and len(dls.train) == len(epochs[0])//dls.train.bs and epochs[0] != epochs[1]
    assert sum(1 for _ in dls.train) == len(dls.train)
    assert not set(items) & set(dls.valid_ds.items) and len(dls.valid_ds) == 4
    copy = dls.train.new(shuffle=False, drop_last=False)
    assert sum(len(b[0]) for b in copy) == len(items)

def test_weights_come_again_with_the_state_of_the_loader(photo_folder, tmp_path):
    folders = [tmp_path/'a', tmp_path/'b']
    for o in folders: copies(photo_folder, o, 10)
    dls = ColorDataLoaders.from_folders(folders, [.5, 1.5], **KW)
    state = dls.train.rng.getstate()
    a = [dls.train.get_idxs() for _ in range(2)]
    dls.train.rng.setstate(state)
    assert [dls.train.get_idxs() for _ in range(2)] == a and a[0] != a[1]

@pytest.mark.parametrize('workers', [0, 2])
def test_any_shape(tmp_path, workers):
    "Wide, tall and square photos: the middle, or all of it"
    for i,size in enumerate([(90, 40), (40, 90), (60, 60), (33, 200), (400, 32)]*2):
        im = Image.new('RGB', size, (200, 30, 30))
        im.paste((30, 30, 200), (size[0]//2 - 16, size[1]//2 - 16, size[0]//2 + 16, size[1]//2 + 16))
        im.save(tmp_path/f'{i}.png')
    kw = dict(size=32, bs=2, num_workers=workers)
    stretched,cropped = [ColorDataLoaders.from_folder(tmp_path, fit=o, **kw) for o in ('stretch', 'crop')]
    assert 'fit' not in stretched.config and cropped.config['fit'] == 'crop'
    def red(dls): return np.mean([(y[:,1] > 0).float().mean() for dl in dls for _,y in dl])   # b of Lab is below 0 where it is blue
    assert 1.5*red(cropped) < red(stretched)

def test_damage_is_for_training_only_and_comes_again(photo_folder):
    clean,old = [ColorDataLoaders.from_folder(photo_folder, degrade=o, **KW) for o in (False, 1.)]
    assert 'degrade' not in clean.config and old.config['degrade']['p'] == 1
    for (x1,y1),(x2,y2) in zip(clean.valid, old.valid): assert torch.equal(x1, x2) and torch.equal(y1, y2)
    def epoch(dls):
        dls.train.rng.seed(1)
        torch.manual_seed(1)
        return [(x, y) for x,y in dls.train]
    a,b = epoch(old),epoch(old)
    for (x1,y1),(x2,y2) in zip(a, b): assert torch.equal(x1, x2) and torch.equal(y1, y2)
    assert not torch.equal(a[0][0], epoch(clean)[0][0]) and all(x.abs().max() <= 1 for x,_ in a)

# ---- files

def test_photo_that_vanishes(photo_folder, tmp_path):
    for i,f in enumerate(find_photos([photo_folder])[:6]): (tmp_path/f'{i}.png').write_bytes(f.read_bytes())
    dls = ColorDataLoaders.from_folder(tmp_path, **KW)
    Path(dls.valid_ds.items[0]).unlink()
    with pytest.raises(PhotoError, match='no such file'): dls.valid.one_batch()

def test_one_photo_twice_is_one_photo(photo_folder):
    files = list(find_photos([photo_folder]))
    dls = ColorDataLoaders.from_files(files + files, **KW)
    assert len(dls.train_ds) + len(dls.valid_ds) == len(files)
    with pytest.raises(ValueError, match='overlap'): ColorDataLoaders.from_files(files + files, splits=[[0, 1], [len(files)]], **KW)

def test_few_photos_leave_one_for_validation(photo_folder):
    dls = ColorDataLoaders.from_files(list(find_photos([photo_folder]))[:3], valid_pct=.1, **KW)
    assert (len(dls.train_ds), len(dls.valid_ds)) == (2, 1)
    with pytest.raises(ValueError, match='validation'): ColorDataLoaders.from_files(list(find_photos([photo_folder]))[:1], **KW)

# ---- grey and colour photos that do not belong together

@pytest.fixture
def numbered(tmp_path):
    "Colour photos that can be told apart by their L: photo i has the lightness of grey i"
    (tmp_path/'color').mkdir()
    for i in range(13): Image.new('RGB', (40, 40), (15*i + 10, 15*i + 10, 15*i + 60)).save(tmp_path/'color'/f'{i:02d}.png')
    return tmp_path

def ids(l, dls, files):
    "Which of `files` a batch of L shows"
    ref = torch.stack([split_lab(LoadPhoto(32)(f)[None])[0].mean() for f in files])
    d = (torch.as_tensor(l).mean((1, 2, 3))[:,None] - ref[None]).abs()
    assert d.min(1).values.max() < 1e-5
    return [files[i] for i in d.argmin(1)]

@pytest.mark.parametrize('bs,workers,cached', [(1, 0, False), (1, 0, True), (3, 2, False), (4, 0, True), (16, 0, False)])
def test_one_folder_never_the_same_picture_in_both_halves(numbered, bs, workers, cached):
    dls = ColorDataLoaders.from_folder(numbered/'color', size=32, bs=bs, num_workers=workers, valid_pct=.1, unpaired=True, cache=numbered/'cache' if cached else None)
    train = list(dls.train_ds.items)
    assert dls.train.bs == min(bs, len(train)//2)
    orders = []
    for _ in range(2):
        seen = []
        for l,lab in dls.train:
            grey,color = ids(l, dls, train),ids(lab[:,:1], dls, train)
            assert len(grey) == len(color) and not set(grey) & set(color)
            seen += zip(grey, color)
        assert len(seen) == len(dls.train)*dls.train.bs and len({c for _,c in seen}) == len({g for g,_ in seen}) == len(seen)
        orders.append(seen)
    assert orders[0] != orders[1]                                                      # other pairs in each epoch
    for l,ab in dls.valid: assert ab.shape[1] == 2 and ids(l, dls, list(dls.valid_ds.items))

@pytest.mark.parametrize('n_grey', [2, 5, 13, 30])
def test_two_folders_never_the_same_name_side_by_side(numbered, n_grey):
    (numbered/'grey').mkdir()
    for i in range(n_grey): Image.new('L', (40, 40), 8*i + 1).save(numbered/'grey'/f'{i:02d}.jpg')   # some have the name of a colour photo
    dls = ColorDataLoaders.from_folder(numbered/'color', size=32, bs=3, num_workers=0, unpaired=numbered/'grey')
    greys,color = dls.train.greys,dls.train_ds.items
    used = []
    for _ in range(20):
        pairs = dls.train.get_idxs()
        assert sorted(c for _,c in pairs) == list(range(len(color)))
        assert all(Path(greys[g]).stem != Path(color[c]).stem for g,c in pairs)
        counts = np.bincount([g for g,_ in pairs], minlength=n_grey)
        assert counts.max() - counts.min() <= 1                                        # each as often as the others
        used += [g for g,_ in pairs]
    assert set(used) == set(range(n_grey))
    l,lab = dls.one_batch()
    assert set(ids(l, dls, list(greys))) <= set(greys) and lab.shape[1] == 3

def test_unpaired_batches_come_again_with_the_state_of_the_loader(numbered):
    dls = ColorDataLoaders.from_folder(numbered/'color', size=32, bs=2, num_workers=0, unpaired=True)
    state = dls.train.rng.getstate()
    a = [dls.train.get_idxs() for _ in range(2)]
    dls.train.rng.setstate(state)
    assert [dls.train.get_idxs() for _ in range(2)] == a and a[0] != a[1]

def test_what_is_wrong_with_the_grey_folder(numbered, capsys):
    kw = dict(size=32, bs=2, num_workers=0)
    color,grey = numbered/'color',numbered/'grey'
    grey.mkdir()
    with pytest.raises(PhotoError, match='no photos in this folder'): ColorDataLoaders.from_folder(color, unpaired=grey, **kw)
    with pytest.raises(PhotoError, match='no such file or folder'): ColorDataLoaders.from_folder(color, unpaired=numbered/'nowhere', **kw)
    (grey/'broken.jpg').write_text('nothing')
    with pytest.raises(ValueError, match='No grey photo is left for training: 1 of 1 grey photos cannot be used, for example .*broken.jpg'): ColorDataLoaders.from_folder(color, unpaired=grey, **kw)
    for i in range(3): Image.new('L', (40, 40), 50*i).save(grey/f'{i}.png')
    dls = ColorDataLoaders.from_folder(color, unpaired=grey, **kw)
    assert '1 of 4 grey photos cannot be used' in capsys.readouterr().out and len(dls.train.greys) == dls.config['grey'] == 3
    Image.new('RGB', (40, 40), (200, 20, 20)).save(grey/'red.png')
    with pytest.raises(ValueError, match=r'1 of the 5 photos that should be grey are in colour, for example .*red.png'): ColorDataLoaders.from_folder(color, unpaired=grey, **kw)
    with pytest.raises(ValueError, match='13 of the 13 photos that should be grey are in colour.*taken for each other'): ColorDataLoaders.from_folder(color, unpaired=color, **kw)
    (grey/'red.png').unlink()
    Image.new('L', (40, 40), 90).save(color/'grey.png')
    dls = ColorDataLoaders.from_folder(color, unpaired=grey, **kw)
    assert len(dls.train_ds) + len(dls.valid_ds) == 13
    assert '1 grey' in capsys.readouterr().out                                         # grey among the colour photos is left out
    with pytest.raises(ValueError, match='No photo is left for training: 0 of 4'): ColorDataLoaders.from_folder(grey, unpaired=color/'grey.png', **kw)
    with pytest.raises(ValueError, match='need two photos for training'): ColorDataLoaders.from_files(list(find_photos(color))[:2], unpaired=True, **kw)

def test_plain_batches_are_as_before(photo_folder):
    dls = ColorDataLoaders.from_folder(photo_folder, **KW)
    assert 'grey' not in dls.config and dls.one_batch()[1].shape[1] == 2
