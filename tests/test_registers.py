"""Declared where it is born: a game, a generator, a critic and a content loss that are defined in one cell of a notebook.

What CONTRIBUTING promises: one class with a line above it, and `create_gan`, `learner.train`, the command, its page of help, resuming, and files of weights know it."""
import json, linecache, subprocess, sys
from itertools import count

import pandas as pd, pytest, torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from fastai.callback.core import Callback
from fastai_colorize import learner
from fastai_colorize.cli import main
from fastai_colorize.games.game import games
from fastai_colorize.nets.register import critics, generators
from fastai_colorize.nets.weights import load_generator
from fastai_colorize.train.losses import content_losses

CELLS = count()

@pytest.fixture
def cell(one_thread):
    "Run a text as a notebook runs a cell; what it registers is forgotten after the test"
    registers = games,generators,critics,content_losses
    for o in registers: len(o)   # all of the package's own are there
    before = [dict(o._entries) for o in registers]
    def run(text):
        name = f'<cell-{next(CELLS)}>'
        linecache.cache[name] = len(text),None,text.splitlines(keepends=True),name   # where `inspect` finds the source of a cell
        exec(compile(text, name, 'exec'), made := {'__name__': '__main__'})
        return made
    yield run
    for register,entries in zip(registers, before):
        register._entries.clear()
        register._entries.update(entries)

SMALL = dict(epochs=2, size=32, bs=4, valid_pct=.25, workers=0, precision='float32')

def command(photos, out, *more):
    "`fastai_colorize train` on few and small pictures"
    small = [o for k,v in SMALL.items() for o in ('--' + k.replace('_', '-'), str(v))]
    random = [] if '--init' in more else ['--no-pretrained']
    return main(['train', str(photos), '--out', str(out), *small, *random, *more])

def page(capsys):
    "Of `fastai_colorize train --help`, in one line"
    with pytest.raises(SystemExit): main(['train', '--help'])
    return ' '.join(capsys.readouterr().out.split())

class Stop(Callback):
    "Ctrl-C in the middle of the second epoch"
    def after_step(self):
        if (self.epoch, self.iter) == (1, 1): raise KeyboardInterrupt

def same_run(a, b):
    "Two runs that ended alike, to the bit"
    for k,v in load_file(a/'weights.safetensors').items(): assert torch.equal(v, load_file(b/'weights.safetensors')[k]), k
    first,second = [torch.load(o/'state.pt', weights_only=True) for o in (a, b)]
    for k,v in first['model'].items(): assert torch.equal(v, second['model'][k]), k
    history = [pd.read_csv(o/'history.csv').drop(columns='time') for o in (a, b)]
    pd.testing.assert_frame_equal(*history)

def stopped_and_resumed(photos, folder, *more, **options):
    "Once through by the command; once stopped, by `learner.train`, and resumed by the command"
    assert command(photos, folder/'whole', *more) == 0
    with pytest.raises(KeyboardInterrupt):
        learner.train(photos, folder/'parts', cbs=Stop(), pretrained=False, **SMALL, **options)
    assert len(pd.read_csv(folder/'parts'/'history.csv')) == 1
    assert command(photos, folder/'parts', *more, '--resume') == 0
    same_run(folder/'whole', folder/'parts')

# ---- a game

GAME = '''
from fastai_colorize.games.adversarial import ConditionalGAN
from fastai_colorize.games.game import games

@games('mine', defaults=dict(generator='unet', epochs=3, size=64, bs=2, lr=1e-4, min_scale=1.))
class Mine(ConditionalGAN):
    "The critic counts for more"
    def __init__(self, critic,
        its_option:float=2., # how much more the critic counts
        **kwargs # of `ConditionalGAN`
    ):
        super().__init__(critic, **kwargs)
        self.its_option = its_option
    @property
    def rules(self): return dict(super().rules, its_option=self.its_option)
    def generator_loss(self, l, pred): return self.its_option*super().generator_loss(l, pred)
'''

def test_a_game_of_ones_own(cell, photo_folder, tmp_path, capsys):
    mine = cell(GAME)['Mine']
    dls = learner.ColorDataLoaders.from_folder(photo_folder, size=32, bs=4, num_workers=0, check=False)
    learn = learner.colorize_learner(dls, 'unet', metrics=[], **learner.create_gan('mine', its_option=3.))
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_lin(1, 0, 1e-4)
    game = next(cb for cb in learn.cbs if isinstance(cb, mine))
    assert game.its_option == 3 and game.n_seen == len(dls.train)
    assert any(isinstance(m, nn.BatchNorm2d) for m in game.critic.modules())   # as `cgan` has it, from which it is derived

    text = page(capsys)
    assert '--its-option X how much more the critic counts (default: 2)' in text and 'with --gan mine' in text
    assert 'cgan, wgan-clip, wgan-gp, cyclegan, mine' in text
    assert '0.001; 5e-05 for cgan, wgan-clip, wgan-gp; 1e-05 for cyclegan; 0.0001 for mine' in text

    options = dict(gan='mine', generator='unet', its_option=3.)
    stopped_and_resumed(photo_folder, tmp_path, '--gan', 'mine', '--its-option', '3', '--generator', 'unet', **options)
    made = json.loads((tmp_path/'parts'/'recipe.json').read_text())
    assert made['callbacks']['Mine']['its_option'] == 3 and made['callbacks']['Mine']['lambda_l1'] == 100
    assert 'd_fake' in pd.read_csv(tmp_path/'parts'/'history.csv')
    capsys.readouterr()
    assert command(photo_folder, tmp_path/'parts', '--resume', '--gan', 'mine', '--generator', 'unet', '--its-option', '4') == 1
    assert 'was trained with callbacks' in capsys.readouterr().err

def test_an_option_belongs_to_its_game(cell, photo_folder, tmp_path, capsys):
    cell(GAME)
    assert command(photo_folder, tmp_path/'r', '--gan', 'cgan', '--its-option', '3') == 1
    assert '--its-option belongs to --gan mine, and here it is --gan cgan' in capsys.readouterr().err
    assert command(photo_folder, tmp_path/'r', '--gan', 'mine', '--clip', '1') == 1
    assert '--clip belongs to --gan wgan-clip' in capsys.readouterr().err and not (tmp_path/'r').exists()

def test_its_defaults_train_it(cell, photo_folder, tmp_path):
    "What the game declares is what a training without words does"
    cell(GAME)
    learn = learner.train(photo_folder, tmp_path/'r', 'mine', epochs=1, valid_pct=.25, workers=0, precision='float32')
    assert learn.model.config == dict(generator='unet', size=64) and set(learn.recorder.lrs) == {1e-4} and learn.dls.bs == 2

def test_names_are_taken_once(cell):
    cell(GAME)
    with pytest.raises(ValueError, match="'cgan' exists already"): cell(GAME.replace("'mine'", "'cgan'"))
    cell(GAME)   # the same cell once more

# ---- a generator

GENERATOR = '''
from torch import nn
from fastai_colorize.nets.register import generators

@generators('mine')
class Mine(nn.Module):
    "Two convolutions"
    def __init__(self,
        nf:int=8, # channels between them
    ):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, nf, 3, padding=1), nn.BatchNorm2d(nf), nn.ReLU(), nn.Conv2d(nf, 2, 3, padding=1))
    def forward(self, l): return self.layers(l)
'''

def test_a_generator_of_ones_own(cell, photo_folder, tmp_path, capsys):
    mine = cell(GENERATOR)['Mine']
    assert ', mine' in page(capsys)
    stopped_and_resumed(photo_folder, tmp_path, '--generator', 'mine', generator='mine')
    weights = tmp_path/'parts'/'weights.safetensors'
    net = load_generator(weights)
    assert isinstance(net, mine) and net.config == dict(generator='mine') and net.render_size == 32
    photo = str(photo_folder/'coffee'/'0.png')
    assert main(['colorize', photo, '--out', str(tmp_path/'out'), '--weights', str(weights)]) == 0
    assert Image.open(tmp_path/'out'/'0.png').size == (200, 160)
    assert command(photo_folder, tmp_path/'gan', '--gan', 'cgan', '--init', str(weights)) == 0   # and against a critic

def test_its_weights_load_after_registration(cell, photo_folder, tmp_path):
    "In another process, once the cell has run there"
    cell(GENERATOR)
    assert command(photo_folder, tmp_path/'r', '--generator', 'mine') == 0
    (tmp_path/'cell.py').write_text(GENERATOR)
    code = """import sys
from fastai_colorize.nets.weights import load_generator
try: load_generator(sys.argv[1])
except ValueError as e: print(e)
import cell
print(load_generator(sys.argv[1]).config)"""
    args = [sys.executable, '-c', code, str(tmp_path/'r'/'weights.safetensors')]
    before,after = subprocess.run(args, capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    assert 'generator must be one of' in before and after == "{'generator': 'mine'}"

def test_a_generator_made_for_one_size(cell, photo_folder, tmp_path):
    "It is told the size of the pictures"
    text = GENERATOR.replace("generators('mine')", "generators('mine', one_size=True)").replace('    ):\n', '        size:int=256, # of the pictures\n    ):\n        self.size = size\n')
    cell(text.replace('self.size = size\n        super().__init__()', 'super().__init__()\n        self.size = size'))
    assert command(photo_folder, tmp_path/'r', '--generator', 'mine') == 0
    assert load_generator(tmp_path/'r'/'weights.safetensors').size == 32

# ---- a critic

CRITIC = '''
import torch
from torch import nn
from fastai_colorize.nets.register import critics

@critics('mine')
class Mine(nn.Module):
    "A verdict for each pixel"
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU(.2), nn.Conv2d(4, 1, 1))
    def forward(self, l, ab): return self.layers(torch.cat([l, ab], 1))
'''

def test_a_critic_of_ones_own(cell, photo_folder, tmp_path, capsys):
    mine = cell(CRITIC)['Mine']
    assert isinstance(learner.create_gan('cgan', critic='mine')['cbs'].critic, mine)
    assert 'under small heads): mine' in page(capsys)
    options = dict(gan='cgan', generator='unet', critic='mine')
    stopped_and_resumed(photo_folder, tmp_path, '--gan', 'cgan', '--generator', 'unet', '--critic', 'mine', **options)
    assert json.loads((tmp_path/'parts'/'recipe.json').read_text())['callbacks']['ConditionalGAN']['critic'] == 'Mine'

# ---- a content loss

LOSS = '''
import torch
from torch import nn
from fastai_colorize.train.losses import content_losses

@content_losses('mine')
class Mine(nn.Module):
    "Colourful pixels count for more"
    def __init__(self,
        strength:float=1., # weight of the colour in the weight of a pixel
    ):
        super().__init__()
        self.strength = strength
    def forward(self, pred, true): return ((1 + self.strength*true.abs())*(pred - true).abs()).mean()
'''

def test_a_content_loss_of_ones_own(cell, photo_folder, tmp_path, capsys):
    mine = cell(LOSS)['Mine']
    text = page(capsys)
    assert 'mine' in text and '--strength X weight of the colour in the weight of a pixel (default: 1)' in text
    options = dict(loss='mine', strength=2., generator='unet')
    stopped_and_resumed(photo_folder, tmp_path, '--loss', 'mine', '--strength', '2', '--generator', 'unet', **options)
    assert json.loads((tmp_path/'parts'/'recipe.json').read_text())['loss'] == 'Mine'
    learn = learner.train(photo_folder, tmp_path/'gan', gan='cgan', pretrained=False, **{**SMALL, **options, 'epochs': 1})
    assert isinstance(learn.loss_func, mine) and learn.loss_func.strength == 2
    assert command(photo_folder, tmp_path/'r', '--strength', '2') == 1
    assert '--strength belongs to --loss mine, and here it is --loss l1' in capsys.readouterr().err
