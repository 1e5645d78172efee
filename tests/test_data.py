"Loading from COCO, and disks and files that fail."
import json
from pathlib import Path

import numpy as np, pytest
from PIL import Image

from fastai_colorize.data import ColorDataLoaders, PhotoCache
from fastai_colorize.photos import PhotoError, find_photos

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
