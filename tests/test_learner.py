"Trainings that are killed, disturbed, or set up wrongly."
import json, random, re
from functools import partial

import numpy as np, pandas as pd, pytest, torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from fastai_colorize import learner
from fastai_colorize.base.color import merge_lab
from fastai_colorize.base.options import function_options
from fastai_colorize.train.perceptual import PerceptualLoss
from fastai.callback.core import Callback

@pytest.fixture
def dls(photo_folder): return learner.ColorDataLoaders.from_folder(photo_folder, size=32, bs=6, valid_pct=.25, num_workers=0, check=False)

def net(): return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(.1), nn.Conv2d(8, 2, 3, padding=1))

def run(dls, out, resume=False, cbs=None, n=3, bf16=False, ema=False):
    random.seed(0); np.random.seed(0); torch.manual_seed(0)
    model = net()
    model.config = dict(generator='tiny')
    learn = learner.colorize_learner(dls, model, out=out, resume=resume, bf16=bf16, cbs=[learner.EMA(.9)] if ema else [])
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n, 1e-2, cbs=cbs)
    return learn

class Stop(Callback):
    "Ctrl-C at one batch"
    def __init__(self, *at): self.at = at
    def after_step(self):
        if (self.epoch, self.iter) == self.at: raise KeyboardInterrupt

@pytest.mark.parametrize('at', [(1, 0), (1, 2), (2, 1)])
@pytest.mark.parametrize('kw', [{}, dict(bf16=True), dict(ema=True)], ids=['float32', 'bf16', 'ema'])
def test_resume_is_bit_equal(dls, photo_folder, tmp_path, at, kw):
    "Stopped anywhere, in a fresh process or not, the end is the same; dropout draws random numbers in between"
    rng = dls.train.rng.getstate()
    whole = run(dls, tmp_path/'whole', **kw)
    dls.train.rng.setstate(rng)
    with pytest.raises(KeyboardInterrupt): run(dls, tmp_path/'parts', cbs=Stop(*at), **kw)
    assert not torch.is_autocast_enabled('cpu')
    parts = run(dls, tmp_path/'parts', resume=True, **kw)
    for (k,a),b in zip(whole.model.state_dict().items(), parts.model.state_dict().values()): assert torch.equal(a, b), k
    for a,b in zip(whole.opt.state_dict()['state'].values(), parts.opt.state_dict()['state'].values()):
        for k in a: assert torch.equal(a[k], b[k]), k
    read = lambda o: pd.read_csv(tmp_path/o/'history.csv').drop(columns='time')
    pd.testing.assert_frame_equal(read('whole'), read('parts'))
    assert len(list((tmp_path/'parts'/'samples').iterdir())) == 3

def test_best_epoch_is_kept(dls, tmp_path):
    run(dls, tmp_path/'r')
    hist = pd.read_csv(tmp_path/'r'/'history.csv')
    best = json.loads((tmp_path/'r'/'metrics.json').read_text())
    assert best['valid_loss'] == pytest.approx(hist.valid_loss.min()) and best['epoch'] == hist.valid_loss.idxmin()

def test_disk_full_keeps_the_last_epoch(dls, tmp_path, monkeypatch):
    real = torch.save
    def full(state, f):
        if state['epoch'] < 1: return real(state, f)
        with open(f, 'wb') as o: o.write(b'half')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='No space left'): run(dls, tmp_path/'r')
    monkeypatch.setattr(torch, 'save', real)
    assert torch.load(tmp_path/'r'/'state.pt', weights_only=True)['epoch'] == 0
    assert not list((tmp_path/'r').glob('.*'))
    run(dls, tmp_path/'r', resume=True)
    assert len(pd.read_csv(tmp_path/'r'/'history.csv')) == 3

def test_lr_find_and_validate_leave_the_folder_alone(dls, tmp_path):
    learn = run(dls, tmp_path/'r')
    before = {o.name: o.stat().st_mtime_ns for o in (tmp_path/'r').iterdir()}
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.lr_find(num_it=4, show_plot=False)
        learn.get_preds()
    assert before == {o.name: o.stat().st_mtime_ns for o in (tmp_path/'r').iterdir()}

def test_state_holds_no_pickled_code(dls, tmp_path):
    run(dls, tmp_path/'r', n=1)
    torch.load(tmp_path/'r'/'state.pt', weights_only=True)

def test_resume_with_other_settings(dls, tmp_path):
    run(dls, tmp_path/'r', n=1)
    with pytest.raises(ValueError, match='epochs = 1, now it is 2'): run(dls, tmp_path/'r', resume=True, n=2)
    with pytest.raises(FileExistsError, match='holds a training already'): run(dls, tmp_path/'r', n=1)

def test_nan_keeps_the_last_good_epoch(dls, tmp_path):
    class Break(Callback):
        def after_step(self):
            if self.epoch == 1: self.model[0].weight.data.fill_(float('nan'))
    with pytest.raises(FloatingPointError, match='_loss is nan in epoch 1'): run(dls, tmp_path/'r', cbs=Break())
    assert torch.load(tmp_path/'r'/'state.pt', weights_only=True)['epoch'] == 0

def test_state_that_is_none(dls, tmp_path):
    (tmp_path/'r').mkdir()
    (tmp_path/'r'/'state.pt').write_text('nonsense')
    with pytest.raises(ValueError, match='not the state of a training'): run(dls, tmp_path/'r', resume=True)

def test_nothing_to_freeze(dls):
    with pytest.raises(ValueError, match="Only a ResNet's encoder can be frozen"): learner.colorize_learner(dls, 'unet', freeze=True)

def test_compile_takes_both_nets(dls, monkeypatch):
    seen = []
    monkeypatch.setattr(nn.Module, 'compile', lambda self: seen.append(self))
    learn = learner.colorize_learner(dls, net(), compile=True, **learner.create_gan('cgan'))
    assert seen == [learn.model, learn.conditional_gan.critic]

def test_ctrl_c_inside_the_forward_pass(dls):
    "The next fit, of whatever Learner, begins outside of autocast"
    class Stop(Callback):
        def after_pred(self): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): learner.colorize_learner(dls, net(), bf16=True, cbs=Stop()).fit(1)
    learn,seen = learner.colorize_learner(dls, net(), bf16=True, metrics=[]),[]
    class Look(Callback):
        order = 9   # before it enters
        def before_batch(self): seen.append(torch.is_autocast_enabled('cpu'))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=Look())
    assert not any(seen) and not torch.is_autocast_enabled('cpu')

def test_lr_find_beside_a_moving_average(dls):
    learn = learner.colorize_learner(dls, net(), cbs=learner.EMA(.9), metrics=[])
    before = [p.clone() for p in learn.model.parameters()]
    with learn.no_bar(): learn.lr_find(num_it=4, show_plot=False)
    assert all(torch.equal(a, b) for a,b in zip(before, learn.model.parameters())) and learn.ema.n == 0

@pytest.mark.parametrize('bf16', [False, True])
def test_perceptual_loss(dls, bf16):
    "Training loss: L1 and features, in float32 equal to what is computed beside it. Validation loss: L1 alone"
    torch.manual_seed(0)
    features = create_feature_extractor(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), ['1', '2'])
    class Check(Callback):
        order,n = 6,0
        def after_loss(self):
            l1 = nn.functional.l1_loss(self.pred, self.y)
            if self.training:
                tru,got = [features(merge_lab(self.x, o)) for o in (self.y, self.pred)]
                l1 = l1 + .5*sum((got[k] - tru[k]).abs().mean() for k in ('1', '2'))
                assert self.loss_grad.requires_grad
            assert torch.allclose(self.loss.float(), l1.float(), rtol=2e-2 if bf16 else 1e-5)
            self.n += 1
    check,loss = Check(),PerceptualLoss(.5, features)
    learn = learner.colorize_learner(dls, net(), bf16=bf16, cbs=[loss, check])
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert check.n == len(dls.train) + len(dls.valid) and not features.training
    assert loss.rules == dict(weight=.5) and all(p.grad is None for p in features.parameters())

# ---- the one function

SMALL = dict(size=32, bs=4, valid_pct=.25, workers=0, pretrained=False)

def tiny():
    "A network that `train` takes"
    torch.manual_seed(0)
    res = net()
    res.config = dict(generator='tiny')
    return res

def quiet(*args, **kwargs): return learner.train(*args, **{**SMALL, 'precision': 'float32', 'metrics': [], **kwargs})

def params(learn): return [p.detach().clone() for p in learn.model.parameters()]

def test_asking_for_the_precision_changes_nothing(photo_folder, tmp_path, monkeypatch):
    "Weights and random numbers are where they would be without the question: the same training, to the bit"
    plain = quiet(photo_folder, tmp_path/'a', generator=tiny(), epochs=1)
    monkeypatch.setattr(learner, 'choose_precision', partial(learner.choose_precision, gain=float('inf')))
    asked = quiet(photo_folder, tmp_path/'b', generator=tiny(), epochs=1, precision='auto')
    assert all(torch.equal(a, b) for a,b in zip(params(plain), params(asked)))

@pytest.mark.parametrize('choice', ['bf16', 'float32'])
def test_a_run_keeps_its_precision(choice, photo_folder, tmp_path, monkeypatch):
    "What was chosen once is not asked again, not even after a stop in the first epoch"
    asked = []
    monkeypatch.setattr(learner, 'choose_precision', lambda *args: asked.append(args) or choice)
    with pytest.raises(KeyboardInterrupt): quiet(photo_folder, tmp_path/'r', generator=tiny(), epochs=2, precision='auto', cbs=Stop(0, 1))
    for at in (Stop(1, 1), None):
        try: last = quiet(photo_folder, tmp_path/'r', generator=tiny(), epochs=2, precision='auto', resume=True, cbs=at)
        except KeyboardInterrupt: assert at
    assert len(asked) == 1 and hasattr(last, 'autocast') == (choice == 'bf16')
    assert json.loads((tmp_path/'r'/'recipe.json').read_text())['bf16'] == (choice == 'bf16')

def test_train_with_data_loaders(dls, tmp_path):
    "One's own data and network; what would decide about the data is refused"
    with pytest.raises(ValueError, match='decide about `size`'): learner.train(dls, tmp_path/'r', generator=tiny(), size=64)
    with pytest.raises(ValueError, match='decide about `degrade`'): learner.train(dls, tmp_path/'r', generator=tiny(), degrade=True)
    sized = learner.train(dls, tmp_path/'u', 'wgan-clip', epochs=1, precision='float32', metrics=[])   # a generator made for the size of the batches
    assert sized.model.config['size'] == 32
    learn = learner.train(dls, tmp_path/'r', generator=tiny(), epochs=1, schedule='flat', lr=1e-3, precision='float32', loss='mse')
    assert learn.dls is dls and isinstance(learn.loss_func, nn.MSELoss) and set(learn.recorder.lrs) == {1e-3}

@pytest.mark.parametrize('kwargs, words', [
    (dict(clip=.1), '`clip` belongs to `gan` wgan-clip, and here it is `gan` nothing'),
    (dict(gan='cgan', lambda_cycle=1.), 'belongs to `gan` cyclegan, and here it is `gan` cgan'),
    (dict(gan='cgan', grey='x'), '`grey` belongs to a game without pairs'),
    (dict(gan='cyclegan', loss='mse'), 'nothing to compare'),
    (dict(decay=1), 'flat'), (dict(gan='cgan', epochs=1, decay=2), '`decay` 2 is more than all the epochs, 1'),
    (dict(init='l1', generator='unet'), 'brings its own generator'), (dict(init='l1', pretrained=False), 'brings its own weights'),
    (dict(gan='chess'), 'must be one of cgan'), (dict(generator='chess'), 'must be one of'), (dict(loss='chess'), 'must be one of l1')])
def test_what_does_not_fit_together(kwargs, words, photo_folder, tmp_path):
    "Before a photo is read or a folder made"
    with pytest.raises(ValueError, match=re.escape(words)): learner.train(photo_folder, tmp_path/'r', **kwargs)
    assert not (tmp_path/'r').exists()

def test_an_argument_that_nobody_has(photo_folder, tmp_path):
    with pytest.raises(TypeError, match="unexpected argument 'lamda_l1'"): learner.train(photo_folder, tmp_path/'r', gan='cgan', lamda_l1=1)

def test_defaults_of_a_game_and_without(photo_folder, tmp_path):
    "The moving average of the trials comes with the game, and 0 leaves it out"
    learn = quiet(photo_folder, tmp_path/'a', gan='cgan', generator=tiny(), epochs=1, loss='smooth_l1')
    assert learn.ema.decay == .998 and isinstance(learn.loss_func, nn.SmoothL1Loss) and set(learn.recorder.lrs) == {5e-5}
    learn = quiet(photo_folder, tmp_path/'b', gan='cgan', generator=tiny(), epochs=2, decay=1, ema=0, gan_loss='bce')
    assert not hasattr(learn, 'ema') and learn.recorder.lrs[-1] < 5e-5 and type(learn.conditional_gan.gan_loss).__name__ == 'BCELoss'

def test_everything_is_documented():
    "Each public function tells its arguments and what it returns; `train` names them all"
    for name in ('train', 'colorize_learner', 'create_gan', 'ColorDataLoaders', 'fused_adamw', 'games'): assert name in learner.__all__
    assert all(o.help for o in function_options('fastai_colorize.learner', 'train'))
