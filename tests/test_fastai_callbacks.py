"fastai's own callbacks in a training of ours, by L1 and in a game: each does its work, or is refused with a sentence"
import importlib.util

import pandas as pd, pytest, torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.progress import CSVLogger, ShowGraphCallback
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback, TerminateOnNaNCallback
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip, ShortEpochCallback
from fastai.torch_core import set_seed

from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.games.game import create_gan
from fastai_colorize.learner import EMA, colorize_learner
from fastai_colorize.nets.critics import PatchGAN
from fastai_colorize.nets.register import create_generator

pytestmark = [pytest.mark.usefixtures('one_thread'), pytest.mark.filterwarnings('ignore')]

@pytest.fixture(params=['l1', 'cgan'])
def make(request, photo_folder, tmp_path):
    "Makes a small Learner with callbacks; by L1 and in a game"
    def make(*cbs, bs=4, progress=False, **kwargs):
        set_seed(42)
        dls = ColorDataLoaders.from_folder(photo_folder, size=32, bs=bs, num_workers=0, valid_pct=.2)
        more = create_gan('cgan', cbs=cbs, critic=PatchGAN(ndf=4)) if request.param == 'cgan' else dict(cbs=cbs)
        learn = colorize_learner(dls, create_generator('unet', size=32, ngf=2), path=tmp_path, **more, **kwargs)
        learn.logger = lambda o: None
        if not progress: learn.remove_cb(learn.progress)
        return learn
    make.game = request.param == 'cgan'
    return make

def weights(learn): return [o.detach().clone() for o in learn.model.parameters()]
def equal(a, b): return all(torch.equal(*o) for o in zip(a, b))

def test_csv_logger(make, tmp_path):
    learn = make(CSVLogger())
    learn.fit(2, 1e-3)
    table = pd.read_csv(tmp_path/'history.csv')
    assert len(table) == 2
    assert {'train_loss', 'valid_loss', 'psnr', *(['g_gan', 'd_loss'] if make.game else [])} <= set(table)

def test_save_model(make, tmp_path):
    "The weights of the best epoch are there, and loaded at the end"
    seen,learn = [],make(SaveModelCallback(monitor='psnr'))
    class Keep(Callback):
        def after_epoch(self): seen.append(weights(self.learn))
    learn.fit(3, 1e-2, cbs=Keep())
    psnr = [o[learn.recorder.metric_names[1:].index('psnr')] for o in learn.recorder.values]
    assert equal(weights(learn), seen[psnr.index(max(psnr))]) and (tmp_path/'models'/'model.pth').exists()

def test_early_stopping(make):
    learn = make(EarlyStoppingCallback(monitor='valid_loss', min_delta=10., patience=2))
    learn.fit(5, 1e-3)
    assert len(learn.recorder.values) == 3

def test_reduce_lr_on_plateau(make):
    "Our optimizers take what it writes into `hypers`"
    learn = make(ReduceLROnPlateau(monitor='valid_loss', min_delta=10., patience=1, factor=10.))
    learn.fit(3, 1e-3)
    assert [h['lr'] for h in learn.opt.hypers] == pytest.approx([1e-5]*len(learn.opt.hypers))
    assert learn.recorder.lrs[0] == 1e-3 and learn.recorder.lrs[-1] == pytest.approx(1e-4)
    if make.game: assert learn.conditional_gan.critic_opt.hypers[0]['lr'] == pytest.approx(1e-4)

def test_gradient_accumulation(make):
    "Two batches of 4 to a step"
    steps = []
    class Count(Callback):
        def after_step(self): steps.append(self.train_iter)
    learn = make(GradientAccumulation(8))
    learn.fit(1, 1e-3, cbs=Count())
    assert len(learn.dls.train) == 5 and steps == [1, 3]

def test_gradient_clip(make):
    "Norms seen by the optimizer"
    norms = []
    class Look(Callback):
        order = GradientClip.order + 1
        def before_step(self):
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            norms.append(torch.stack([g.norm() for g in grads]).norm().item())
    make(GradientClip(1e-3)).fit(1, 1e-3, cbs=Look())
    assert norms and max(norms) <= 1.001e-3

def test_mixed_precision(make):
    "Without CUDA it is float32, and nothing breaks"
    learn = make(MixedPrecision())
    before = weights(learn)
    learn.fit(1, 1e-3)
    assert not equal(before, weights(learn)) and not torch.is_autocast_enabled('cpu')
    assert all(torch.isfinite(o).all() for o in weights(learn))

def test_show_graph(make):
    learn = make(ShowGraphCallback(), progress=True)
    learn.fit(1, 1e-3)
    assert len(learn.show_graph.nb_batches) == 1

def test_short_epoch_and_nan(make):
    class Break(Callback):
        def after_step(self): self.model.parameters().__next__().data.fill_(float('nan'))
    learn = make(ShortEpochCallback(.5))
    learn.fit(1, 1e-3)
    assert len(learn.recorder.losses) == 3
    learn = make(TerminateOnNaNCallback())
    if make.game:
        with pytest.raises(FloatingPointError, match='is nan in batch'): learn.fit(2, 1e-3, cbs=Break())
    else:
        learn.fit(2, 1e-3, cbs=Break())
        assert len(learn.recorder.losses) == 1

def test_bn_freeze_and_average(make):
    learn = make(BnFreeze(), EMA(.9))
    learn.fit(1, 1e-3)
    assert all(torch.isfinite(o).all() for o in weights(learn))

@pytest.mark.parametrize('mix', [MixUp, CutMix])
def test_mixing_is_refused(make, mix):
    with pytest.raises(ValueError, match=f'{mix.__name__} mixes two photos.*leave it out'): make(mix()).fit(1, 1e-3)

@pytest.mark.skipif(not importlib.util.find_spec('tensorboard'), reason='needs tensorboard')
def test_tensorboard(make, tmp_path):
    "Losses, learning rates and metrics are in its file"
    from fastai.callback.tensorboard import TensorBoardCallback
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    learn = make(TensorBoardCallback(tmp_path/'tb', trace_model=False, log_preds=False))
    learn.fit(2, 1e-3)
    events = EventAccumulator(str(tmp_path/'tb')).Reload()
    tags = set(events.Tags()['scalars'])
    assert {'train_loss', 'valid_loss', 'psnr', 'lr_0', *(['d_real'] if make.game else [])} <= tags
    assert [o.value for o in events.Scalars('lr_0')] == pytest.approx([1e-3]*len(events.Scalars('lr_0')))

@pytest.mark.skipif(not importlib.util.find_spec('tensorboard'), reason='needs tensorboard')
def test_tensorboard_with_all_it_can(make, tmp_path):
    from fastai.callback.tensorboard import TensorBoardCallback
    make(TensorBoardCallback(tmp_path/'tb')).fit(1, 1e-3)
    assert any((tmp_path/'tb').iterdir())

@pytest.mark.skipif(not importlib.util.find_spec('wandb'), reason='needs wandb')
def test_wandb_offline(make, tmp_path, monkeypatch):
    import wandb
    from fastai.callback import wandb as theirs
    try: theirs._format_config({'n': 1})
    except TypeError:    # fastai 2.8.12 asks a number for its __dict__: no Learner gets past it
        monkeypatch.setattr(theirs, '_format_config', lambda o: o)
    for k,v in dict(WANDB_MODE='offline', WANDB_DIR=str(tmp_path), WANDB_SILENT='true').items():
        monkeypatch.setenv(k, v)
    run = wandb.init(project='tests', dir=str(tmp_path))
    try:
        make(theirs.WandbCallback(log=None, log_preds=False, log_model=False)).fit(1, 1e-3)
        assert {'train_loss', 'valid_loss', 'psnr'} <= set(run.summary.keys())
    finally: run.finish()
