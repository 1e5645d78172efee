"The folder of a training: other photos are refused, a second process too, and what is damaged is named"
import os, shutil, subprocess, sys

import pandas as pd, pytest, torch
from fastai.torch_core import set_seed
from PIL import Image

from fastai_colorize import learner
from fastai_colorize.base.files import error_line
from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.learner import colorize_learner
from fastai_colorize.nets.register import create_generator

pytestmark = [pytest.mark.usefixtures('one_thread'), pytest.mark.filterwarnings('ignore:The generator paints grey')]

@pytest.fixture
def photos(photo_folder, tmp_path): return shutil.copytree(photo_folder, tmp_path/'photos')

def train(photos, out, epochs=1, resume=True, seed=42, **kwargs):
    set_seed(42)
    dls = ColorDataLoaders.from_folder(photos, size=32, bs=4, num_workers=0, seed=seed, **kwargs)
    learn = colorize_learner(dls, create_generator('unet', size=32, ngf=2), out=out, resume=resume)
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_lin(epochs, 0, 1e-3)
    return learn

def refused(photos, out, **kwargs):
    before = {f: f.read_bytes() for f in out.rglob('*') if f.is_file()}
    with pytest.raises(ValueError) as e: train(photos, out, **kwargs)
    assert {f: f.read_bytes() for f in out.rglob('*') if f.is_file()} == before     # nothing was touched, no lock is left
    return error_line(e.value)

def test_other_photos_are_refused(photos, tmp_path):
    out = tmp_path/'run'
    train(photos, out)
    table = pd.read_csv(out/'photos.csv')
    assert list(table) == ['part', 'name', 'bytes', 'sha1'] and len(table) == 24 and set(table.part) == {'train', 'valid'} and 'coffee/0.png' in set(table.name)
    f,kept = photos/'coffee'/'0.png',(photos/'coffee'/'0.png').read_bytes()
    Image.open(f).rotate(180).save(f)                                             # the same number, name and size: other pixels
    assert '1 has changed (coffee/0.png)' in refused(photos, out)
    f.unlink()
    assert '1 is missing (coffee/0.png)' in refused(photos, out)
    f.write_bytes(kept)
    Image.open(f).rotate(90).save(photos/'coffee'/'new.png')
    assert 'other photos: 1 is new (coffee/new.png)' in refused(photos, out)
    (photos/'coffee'/'new.png').unlink()
    assert 'was trained with data' in refused(photos, out, seed=1)
    f.rename(photos/'astronaut'/'zz.png')                                         # sorted elsewhere: another split
    assert 'another order' in refused(photos, out)
    (photos/'astronaut'/'zz.png').rename(f)
    os.utime(f)                                                                   # a date is no content, nor is a place
    photos.rename(tmp_path/'moved')
    train(tmp_path/'moved', out)

def test_with_a_cache(photos, tmp_path):
    "What the files hold is kept there; a new file is read"
    out,cache = tmp_path/'run',tmp_path/'cache'
    train(photos, out, cache=cache)
    assert len((cache/'contents.json').read_text().split('photos/')) == 25
    f = photos/'coffee'/'0.png'
    Image.open(f).rotate(180).save(f)
    assert '1 has changed (coffee/0.png)' in refused(photos, out, cache=cache)

@pytest.mark.parametrize('keep', [0, 1, 50, .5, -1])
def test_damaged_state(photos, tmp_path, keep):
    out = tmp_path/'run'
    train(photos, out)
    whole = (out/'state.pt').read_bytes()
    (out/'state.pt').write_bytes(whole[:int(len(whole)*keep) if isinstance(keep, float) else keep])
    assert f"{out/'state.pt'} is not the state of a training, or it is damaged" in refused(photos, out)
    torch.save({**torch.load(_write(tmp_path/'s', whole), weights_only=True), 'history': None, 'model': {}}, out/'state.pt')
    assert 'state.pt is not whole' in refused(photos, out)

def _write(path, data):
    path.write_bytes(data)
    return path

def test_two_processes(photos, tmp_path):
    "The second is told who is there; when the first is killed, even with no chance to say so, the folder is free"
    out = tmp_path/'run'
    out.mkdir()
    code = f"import time\nfrom fastai_colorize.base.locks import lock_folder\nlock_folder({str(out)!r}, 'trains')\nprint('has it', flush=True)\ntime.sleep(100)"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline() == 'has it\n'
        with pytest.raises(BlockingIOError, match=f'is in use: process {p.pid} trains in it'): train(photos, out)
    finally: p.kill(), p.wait()
    train(photos, out)
    assert not (out/'.lock').exists() and (out/'state.pt').exists()

def test_free_after_an_error(photos, tmp_path):
    learn = train(photos, tmp_path/'run')
    def stop(): raise KeyboardInterrupt
    learn.model.forward = lambda x: stop()
    learn.training_run.resume,learn.training_run.out = False,tmp_path/'two'
    with pytest.raises(KeyboardInterrupt), learn.no_bar(): learn.fit(1)
    assert (tmp_path/'two').is_dir() and not (tmp_path/'two'/'.lock').exists() and '_with_events' not in vars(learn)

def test_leftovers(photos, tmp_path):
    out = tmp_path/'run'
    out.mkdir()
    for n in ('state.pt.part', f'.{"0"*32}.part'): (out/n).write_bytes(b'half')
    os.utime(out/f'.{"0"*32}.part', (0, 0))
    train(photos, out)
    assert not list(out.glob('*.part')) and not list(out.glob('.*'))

def test_damaged_recipe_and_cache(photo_folder, tmp_path):
    "Of what is kept beside the state and the photos: a sentence with its name, or it is made again where it only saves time"
    out,cache = tmp_path/'run',tmp_path/'cache'
    train(photo_folder, out, cache=cache)
    for f in (*cache.glob('*.json'), out/'history.csv', out/'photos.csv'):
        for text in ('', '[1, 2]', '{"a": '): f.write_text(text); train(photo_folder, out, cache=cache)
        assert f.stat().st_size > 50
    (out/'recipe.json').write_text('{"bf')
    with pytest.raises(ValueError, match=f"{out/'recipe.json'} is damaged"): learner.train(photo_folder, out, resume=True, size=32, workers=0)
    part = next(cache.glob('photos_*'))
    whole = part.read_bytes()
    for data in (b'', whole[:7], whole[:100], whole[:-1], bytes(len(whole)), b'\x02' + bytes(7) + b'[]' + whole[10:], whole.replace(b'0.png', b'", 1"')):
        part.write_bytes(data)
        with pytest.raises(ValueError, match=f'The cache {part} is damaged.*delete this file'): train(photo_folder, out, cache=cache)
