"What the first release wrote still works: runs go on to the same weights, bit for bit; files of weights load and colour"
import shutil
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from fastai.torch_core import set_seed
from PIL import Image
from safetensors.torch import load_file
from skimage import data

from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.games.adversarial import ConditionalGAN, gan_adam
from fastai_colorize.learner import colorize_learner
from fastai_colorize.nets.critics import PatchGAN
from fastai_colorize.nets.register import create_generator
from fastai_colorize.nets.weights import load_generator, packaged_weights
from fastai_colorize.use.colorizer import Colorizer

RUNS = Path(__file__).parent/'fixtures'/'run_0.1.0'   # stopped after their first epoch of two, and where they ended
GAMES = dict(l1=lambda: {}, cgan=lambda: dict(cbs=[ConditionalGAN(PatchGAN(ndf=2))], opt_func=gan_adam))
runs = pytest.mark.parametrize('name', GAMES)

@pytest.fixture
def photos(tmp_path):
    "The 24 photographs that those runs were trained on"
    folder = tmp_path/'photos'
    folder.mkdir()
    for name in ('astronaut', 'chelsea', 'coffee'):
        im = Image.fromarray(getattr(data, name)())
        for i in range(8): im.crop((25*i, 12*i, 25*i + 200, 12*i + 160)).save(folder/f'{name}_{i}.png')
    return folder

def go_on(name, photos, out, epochs=2, **kwargs):
    set_seed(42)
    dls = ColorDataLoaders.from_folder(photos, size=32, bs=4, num_workers=0)
    learn = colorize_learner(dls, create_generator('unet', size=32, ngf=2), out=out, resume=True, **GAMES[name](), **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_lin(epochs, 0, 1e-3)
    return learn

@runs
@pytest.mark.usefixtures('one_thread')
@pytest.mark.filterwarnings('ignore:The generator paints grey')
def test_a_run_goes_on(name, photos, tmp_path):
    shutil.copytree(RUNS/name, tmp_path/'run')
    learn = go_on(name, photos, tmp_path/'run')
    expected = load_file(RUNS/name/'expected.safetensors')
    assert learn.model.state_dict().keys() == expected.keys()
    for k,v in learn.model.state_dict().items(): assert torch.equal(v, expected[k]), k
    old,new = [pd.read_csv(o/'history.csv') for o in (RUNS/name, tmp_path/'run')]
    assert len(old) == 1 and len(new) == 2 and list(old) == list(new)
    pd.testing.assert_frame_equal(new[:1], old)

@runs
def test_another_training_is_refused(name, photos, tmp_path):
    shutil.copytree(RUNS/name, tmp_path/'run')
    with pytest.raises(ValueError, match='was trained with epochs = 2, now it is 3'): go_on(name, photos, tmp_path/'run', 3)

@runs
def test_weights_load(name):
    model = load_generator(RUNS/name/'weights.safetensors')
    assert model.config == dict(generator='unet', ngf=2, size=32) and model.metrics['epoch'] == 0 and model.render_size == 32
    with torch.no_grad(): ab = model(torch.zeros(1, 1, 32, 32))
    assert ab.shape == (1, 2, 32, 32) and ab.isfinite().all()

def test_packaged_weights_colour():
    im = Colorizer.from_pretrained('l1').colorize(Image.fromarray(data.astronaut()).convert('L'))
    assert im.size == (512, 512)
    rgb = np.asarray(im).astype(float)
    assert packaged_weights('l1').is_file() and 5 < np.ptp(rgb, 2).mean() < 100   # in colour
    grey = np.asarray(im.convert('L')).astype(float) - np.asarray(Image.fromarray(data.astronaut()).convert('L'))
    assert np.abs(grey).mean() < 8                                                 # on the photo's own lightness
