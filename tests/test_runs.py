"The folder of a training: other photos are refused, a second process too, and what is damaged is named"
import os, shutil, subprocess, sys

import pandas as pd, pytest, torch
from conftest import HalfOnCPU
from fastai.callback.core import CancelStepException, Callback
from fastai.torch_core import set_seed
from fastcore.foundation import L
from PIL import Image

from fastai_colorize import learner
from fastai_colorize.base.files import error_line
from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.games.game import create_gan, games
from fastai_colorize.learner import colorize_learner
from fastai_colorize.nets.register import create_generator
from fastai_colorize.nets.unet import UNet

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
    for n in ('photos.csv', 'left_out.csv'): (out/n).write_text('photo\n')       # all that there is before the recipe
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

# ---- every column of every game, as if there had been no stop

class Stop(Callback):
    "Ctrl-C in a batch, or between two epochs"
    order = -100
    def __init__(self, epoch, batch=None): self.at = epoch,batch
    def before_epoch(self): self.stop(None)
    def before_batch(self): self.stop(self.iter)
    def stop(self, batch):
        if (self.epoch, batch) == self.at: raise KeyboardInterrupt

OPTIONS = {'cgan': [{}, dict(critic_steps=2, pretrain=3), dict(augment=True, gan_loss='bce', smooth=.1)],
           'cyclegan': [dict(lambda_identity=.5, pool_size=3)],
           'wgan-clip': [{}, dict(one_batch=True)], 'wgan-gp': [{}, dict(critic_steps=3, lambda_ct=2.)]}
PLAYED = [('l1', {})] + [(name, o) for name in games for o in OPTIONS.get(name, [{}])]   # a new game is here too

def play(folder, out, name, options, cbs=(), stop=None, resume=False, fit='fit_flat_lin', n=3):
    set_seed(42)
    dls = ColorDataLoaders.from_folder(folder, size=32, bs=4, num_workers=0, valid_pct=.2, unpaired=name == 'cyclegan')
    grey = dict(grey=UNet(32, 3, 1, ngf=2)) if name == 'cyclegan' else {}
    made = dict(cbs=[], opt_func=None) if name == 'l1' else create_gan(name, **options, **grey)
    learn = colorize_learner(dls, create_generator('unet', size=32, ngf=2), out=out, resume=resume,
                             opt_func=made['opt_func'], cbs=[*L(made['cbs']), *[o() for o in cbs]], path=out.parent)
    args = dict(fit_flat_lin=(n - 1, 1, 1e-3), fit_one_cycle=(n, 1e-3), fit=(n, 1e-3))[fit]
    with learn.no_bar(), learn.no_logging(): getattr(learn, fit)(*args, cbs=stop and Stop(*stop))
    return learn

def same_columns(folder, tmp_path, *game, stops=((1, 2), (2, None)), **kwargs):
    "Whatever a run writes down: but for the time, as if there had been no stop"
    whole = play(folder, tmp_path/'whole'/'run', *game, **kwargs)
    read = lambda o: pd.read_csv(tmp_path/o/'run'/'history.csv').drop(columns='time')
    for i,stop in enumerate(stops):
        with pytest.raises(KeyboardInterrupt): play(folder, tmp_path/f'{i}'/'run', *game, stop=stop, **kwargs)
        parts = play(folder, tmp_path/f'{i}'/'run', *game, resume=True, **kwargs)
        pd.testing.assert_frame_equal(read('whole'), read(f'{i}'), check_exact=True)
        assert [float(o) for o in whole.recorder.losses] == [float(o) for o in parts.recorder.losses]
        assert whole.recorder.iters == parts.recorder.iters
        pairs = zip(whole.model.state_dict().values(), parts.model.state_dict().values())
        assert all(torch.equal(a, b) for a,b in pairs)
    return whole,read('whole')

@pytest.fixture
def small_critics(monkeypatch):
    for o in games.values(): monkeypatch.setitem(o.facts.setdefault('critic', {}), 'ndf', 4)

@pytest.mark.usefixtures('small_critics')
@pytest.mark.parametrize('name,options', PLAYED, ids=lambda o: o if isinstance(o, str) else ','.join(o))
def test_every_column_after_a_stop(photo_folder, tmp_path, name, options):
    "Epochs of 5 batches, the second of which ends within a round of critic steps"
    learn,table = same_columns(photo_folder, tmp_path, name, options)
    terms = [t for cb in learn.cbs for t in getattr(cb, 'terms', ())]
    assert set(table) >= {'epoch', 'train_loss', 'valid_loss', 'psnr', *terms}
    assert len(table) == 3 and not table.isna().any().any()

class Half(HalfOnCPU):
    "Too high a scale at first: steps are left out until it fits"
    def before_fit(self): self.learn.scaler = torch.amp.GradScaler('cpu', init_scale=2.**24, growth_interval=3)
    def before_step(self):
        self.skipped = True
        self.learn.scaler.step(self)
        if self.skipped: raise CancelStepException
    def step(self): self.skipped = False

@pytest.mark.usefixtures('small_critics')
@pytest.mark.parametrize('name', ['l1', 'cgan'])
def test_scale_of_fp16_after_a_stop(photo_folder, tmp_path, name):
    same_columns(photo_folder, tmp_path, name, {}, cbs=[Half])
