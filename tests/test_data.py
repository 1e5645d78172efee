"Loading from COCO, and disks and files that fail."
import json
from pathlib import Path

import numpy as np, pytest, torch
from PIL import Image

from fastai_colorize.base.color import split_lab
from fastai_colorize.data.loaders import ColorDataLoaders, LoadPhoto, PhotoCache
from fastai_colorize.base.photos import PhotoError, find_photos

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
    monkeypatch.setattr(builtins, 'open', lambda f, *a, **k: Full(real(f, *a, **k)) if str(f).endswith('.part') else real(f, *a, **k))
    with pytest.raises(OSError, match='cache .* cannot be written: No space left'): PhotoCache.build(find_photos([photo_folder]), 32, tmp_path)
    assert not list(tmp_path.iterdir())

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
