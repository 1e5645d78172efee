"""What several tests share: photographs (cut-outs of those that come with the dependencies), a tiny GAN, and the options `--slow` and `COLORIZE_PHOTOS`.

    pytest --slow                              # also the tests that train for minutes
    COLORIZE_PHOTOS=folder pytest --slow       # on photographs of your own: a few hundred, in colour"""
import matplotlib
matplotlib.use('Agg')

import copy, ctypes, gc, os, signal
from pathlib import Path

import pytest, torch, torch.nn.functional as F
from PIL import Image
from skimage import data
from torch import nn

from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai_colorize.games.adversarial import gan_adam
from fastai_colorize.data.batches import TensorL, TensorAB
from fastai_colorize.base.pictures import sample_photos
from fastai_colorize.base.photos import find_photos
from fastai_colorize.nets.unet import UNet

signal.signal(signal.SIGINT, signal.default_int_handler)   # shells start background jobs, and with them the tests of Ctrl-C, deaf to it

def pytest_addoption(parser): parser.addoption('--slow', action='store_true', help='also run the tests that take minutes')

def pytest_collection_modifyitems(config, items):
    # Notebooks first, then the docs in a browser, and photos of 100 megapixels: they need the memory that other tests
    # fill in this process
    early = lambda o: o.path.stem in ('test_docs', 'test_photos')
    items.sort(key=lambda o: (not o.name.startswith('test_runs['), not early(o)))
    if config.getoption('--slow'): return
    for o in items:
        if o.get_closest_marker('slow'): o.add_marker(pytest.mark.skip(reason='takes minutes: run with --slow'))

# ---- memory

def _resident():
    "Megabytes that this process holds; 0 where the system does not tell"
    try: return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6
    except (OSError, ValueError): return 0

def _glibc(name, *args):
    try: getattr(ctypes.CDLL(None), name)(*args)
    except (OSError, AttributeError, TypeError): pass      # another system

_glibc('mallopt', -3, 8_000_000)   # M_MMAP_THRESHOLD: blocks from 8 MB on are given back at once; else aligned ones of up to 32 MB pile up
_kept = [0.]
def pytest_runtest_logfinish(nodeid):
    "Learners are circles, and glibc keeps what was freed: give back what a test has left, where it is much"
    if _resident() < _kept[0] + 150: return
    gc.collect()
    _glibc('malloc_trim', 0)
    _kept[0] = _resident()

# ---- photographs

@pytest.fixture(scope='session')
def photo_folder(tmp_path_factory):
    "24 small colour photographs in three subfolders"
    folder = tmp_path_factory.mktemp('photos')
    for name in ('astronaut', 'chelsea', 'coffee'):
        (folder/name).mkdir()
        im = Image.fromarray(getattr(data, name)())
        for i in range(8): im.crop((25*i, 12*i, 25*i + 200, 12*i + 160)).save(folder/name/f'{i}.png')
    return folder

@pytest.fixture(scope='session')
def real_photos(tmp_path_factory):
    "A few hundred files: of `COLORIZE_PHOTOS`, or else tiles of 64×64 pixels of the photographs that come with the dependencies"
    if folder := os.environ.get('COLORIZE_PHOTOS'):
        files = find_photos([folder])[:400]
        assert len(files) >= 100, f"COLORIZE_PHOTOS={folder} holds {len(files)} photos, and at least 100 are needed."
    else:
        folder,files = tmp_path_factory.mktemp('tiles'),[]
        for name,rgb in sample_photos().items():
            if name == 'camera': continue                # truly grey
            for y in range(0, rgb.shape[0] - 63, 64):
                for x in range(0, rgb.shape[1] - 63, 64):
                    files.append(folder/f'{name}_{y}_{x}.png')
                    Image.fromarray(rgb[y:y+64, x:x+64]).save(files[-1])
    return files

# ---- a tiny game

@pytest.fixture
def one_thread():
    "One thread, for nets so small that threads only wait for each other; the same random numbers in every run; no autocast left on"
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(n)
    assert not torch.is_autocast_enabled('cpu'), 'this test left autocast on'

def make_items(n=32, size=32, dtype=torch.float32, typed=False):
    g = torch.Generator().manual_seed(0)
    l = torch.rand(n, 1, size, size, generator=g, dtype=dtype)*2 - 1
    ab = torch.cat([l, -l], 1)*0.5 + 0.1*torch.randn(n, 2, size, size, generator=g, dtype=dtype)
    return [(TensorL(a), TensorAB(b)) if typed else (a, b) for a,b in zip(l, ab)]

def make_dls(bs=4, n=16, device='cpu', **kwargs):
    items = make_items(**kwargs)
    return DataLoaders(DataLoader(items[:n], bs=bs), DataLoader(items[n:n+bs], bs=bs), device=torch.device(device))

def make_learner(gan=None, dls=None, model=None, cbs=(), path='.', **kwargs):
    learn = Learner(dls or make_dls(), model or UNet(32, ngf=2), loss_func=F.l1_loss, **{'opt_func': gan_adam, 'lr': 2e-4, **kwargs}, path=path)
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda log: None
    return learn.add_cbs(([gan] if gan is not None else []) + list(cbs))

class Seed(Callback):
    "The same random numbers in both loops"
    order,run_valid = -20,False
    def before_batch(self): torch.manual_seed(self.train_iter)

class Autocast(Callback):
    "As the Learner's own: in from `before_batch`, out in `after_loss`"
    order = 10
    def __init__(self, dtype=torch.bfloat16): self.dtype = dtype
    def before_batch(self):
        self.context = torch.autocast('cpu', self.dtype)
        self.context.__enter__()
    def after_loss(self): self.context.__exit__(None, None, None)

class HalfOnCPU(Autocast):
    "What MixedPrecision does on CUDA, with a scaler that works on the CPU"
    def __init__(self): super().__init__(torch.float16)
    def before_fit(self): self.learn.scaler = torch.amp.GradScaler('cpu', init_scale=1024.)
    def before_backward(self): self.learn.loss_grad = self.learn.scaler.scale(self.learn.loss_grad)
    def before_step(self): self.learn.scaler.step(self)
    def step(self): pass
    def after_step(self): self.learn.scaler.update()
    def after_fit(self): self.learn.scaler = None
    @property
    def param_groups(self): return self.opt.param_groups

class CountBackward(torch.autograd.Function):
    n = 0
    @staticmethod
    def forward(ctx, x): return x.view_as(x)
    @staticmethod
    def backward(ctx, g):
        CountBackward.n += 1
        return g

class Counted(nn.Module):
    "A net that counts its forward passes in training, with the graphs they leave, and all backward passes"
    def __init__(self, model): super().__init__(); self.model,self.n,self.graphs = model,0,[]
    def forward(self, *x):
        self.n += self.training
        y = CountBackward.apply(self.model(*x))
        if self.training: self.graphs.append(y.requires_grad)
        return y

def snap(m): return copy.deepcopy(m.state_dict())
def same(a, b): return all(torch.equal(a[k], b[k]) for k in a)
