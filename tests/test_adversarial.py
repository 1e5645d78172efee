"The Callback against the algorithm written out in plain PyTorch, and beside other callbacks"
import copy, io, matplotlib.pyplot, warnings, numpy as np, pytest, torch
import torch.nn.functional as F
from functools import partial
from torch import nn
from conftest import Autocast, CountBackward, Counted, HalfOnCPU, Seed, make_dls, make_items, make_learner, same, snap
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import CSVLogger, ProgressCallback
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
import fastai.callback.schedule
from fastai.data.core import DataLoaders, Datasets, TfmdDL
from fastai.learner import Learner, load_learner
from fastai.optimizer import OptimWrapper
from fastai_colorize.games.adversarial import ConditionalGAN, gan_adam
from fastai_colorize.games.game import choose_options, create_gan, game_entry
from fastai_colorize.nets.critics import FeatureCritic, PatchGAN
from fastai_colorize.nets.register import critics
from fastai_colorize.games.losses import BCELoss, WassersteinLoss
from fastai_colorize.nets.unet import UNet

pytestmark = [pytest.mark.usefixtures('one_thread'), pytest.mark.filterwarnings('ignore:The generator paints grey')]   # no time to learn

def make_gan(cls=ConditionalGAN, norm='batch', **kwargs): return cls(PatchGAN(ndf=2, norm=norm), **kwargs)

# ---- exactness

def plain_pix2pix(G, D, batches, epochs, lr, lambda_l1=100., smooth=0.):
    "The paper's algorithm with nothing but PyTorch"
    opt_G,opt_D = [torch.optim.Adam(m.parameters(), lr, betas=(0.5, 0.999), eps=1e-8) for m in (G, D)]
    bce = lambda logits, label: F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
    G.train(); D.train()
    i,logs = 0,[]
    for _ in range(epochs):
        for l,ab in batches:
            torch.manual_seed(i); i += 1
            fake = G(l)
            for p in D.parameters(): p.requires_grad = True
            opt_D.zero_grad()
            d_fake,d_real = bce(D(l, fake.detach()), 0.),bce(D(l, ab), 1. - smooth)
            ((d_fake + d_real)*0.5).backward()
            opt_D.step()
            for p in D.parameters(): p.requires_grad = False
            opt_G.zero_grad()
            g_gan,g_l1 = bce(D(l, fake), 1.),F.l1_loss(fake, ab)
            (g_gan + lambda_l1*g_l1).backward()
            opt_G.step()
            logs.append([o.item() for o in (d_real, d_fake, g_gan, g_l1)])
    return opt_G,opt_D,np.array(logs)

@pytest.mark.parametrize('smooth', [0., 0.1])
def test_exact(smooth):
    torch.manual_seed(0)
    G,D = UNet(64, ngf=2).double(),PatchGAN(ndf=2).double()      # 64 px: one of the levels has dropout
    G2,D2 = copy.deepcopy(G),copy.deepcopy(D)
    dls = make_dls(dtype=torch.float64, size=64)
    opt_G,opt_D,logs = plain_pix2pix(G2, D2, list(dls.train), 3, 2e-4, smooth=smooth)
    gan = ConditionalGAN(D, BCELoss(smooth=smooth))
    learn = make_learner(gan, dls, G, cbs=[Seed()])
    start = snap(G),snap(D)
    learn.fit(3, 2e-4)
    for ours,ref,first,opt,opt_ref in (G, G2, start[0], learn.opt, opt_G), (D, D2, start[1], gan.critic_opt, opt_D):
        for (k,a),b in zip(ours.state_dict().items(), ref.state_dict().values()):   # parameters and BatchNorm statistics
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9, msg=k)
            assert not torch.equal(a, first[k])
        for p,q in zip(ours.parameters(), ref.parameters()):
            a,b = opt.opt.state[p],opt_ref.state[q]
            assert a['step'] == b['step'] == 12
            for k in 'exp_avg', 'exp_avg_sq': torch.testing.assert_close(a[k], b[k], rtol=0, atol=1e-9)
    for n,ref in zip(('d_real', 'd_fake', 'g_gan', 'g_l1'), logs.T): np.testing.assert_allclose(gan.history[n], ref, rtol=0, atol=1e-9)
    np.testing.assert_allclose(gan.history['d_loss'], logs[:, :2].mean(1), rtol=0, atol=1e-9)

def plain_hinge(G, D, batches, lr, lr_mult, lambda_l1):
    "A game of the hinge loss with nothing but PyTorch"
    opt_G,opt_D = [torch.optim.Adam(m.parameters(), r, betas=(0.5, 0.999)) for m,r in ((G, lr), (D, lr*lr_mult))]
    G.train(); D.train()
    logs = []
    for i,(l,ab) in enumerate(batches):
        torch.manual_seed(i)
        fake = G(l)
        for p in D.parameters(): p.requires_grad = True
        opt_D.zero_grad()
        d_fake = (1 + D(l, fake.detach())).clamp(min=0).mean()
        d_real = (1 - D(l, ab)).clamp(min=0).mean()
        ((d_fake + d_real)/2).backward()
        opt_D.step()
        for p in D.parameters(): p.requires_grad = False
        opt_G.zero_grad()
        g_gan,g_l1 = -D(l, fake).mean(),F.l1_loss(fake, ab)
        (g_gan + lambda_l1*g_l1).backward()
        opt_G.step()
        logs.append([o.item() for o in (d_real, d_fake, g_gan, g_l1)])
    return np.array(logs)

CRITICS = dict(patch=lambda: PatchGAN(ndf=2), augmented=lambda: PatchGAN(ndf=2, augment='shift,cutout'), features=lambda: FeatureCritic(nf=4, pretrained=False))

@pytest.mark.parametrize('kind', CRITICS)
def test_exact_hinge(kind):
    "Augmented or not, and with a critic on frozen features: the same numbers are drawn in the same order"
    torch.manual_seed(0)
    G,D = UNet(32, ngf=2),CRITICS[kind]()
    G2,D2 = copy.deepcopy(G),copy.deepcopy(D)
    dls = make_dls()
    logs = plain_hinge(G2, D2, list(dls.train), 2e-4, 4., 20.)
    gan = ConditionalGAN(D, 'hinge', lambda_l1=20., lr_mult=4.)
    make_learner(gan, dls, G, cbs=[Seed()]).fit(1, 2e-4)
    for ours,ref in (G, G2), (D, D2):
        for (k,a),b in zip(ours.state_dict().items(), ref.state_dict().values()): torch.testing.assert_close(a, b, rtol=0, atol=1e-5, msg=k)
    for n,ref in zip(('d_real', 'd_fake', 'g_gan', 'g_l1'), logs.T): np.testing.assert_allclose(gan.history[n], ref, rtol=0, atol=1e-4)

def test_games_by_name():
    "What the critic recommends counts before the game's defaults, and what is asked for before both"
    gan = create_gan('cgan', critic=PatchGAN(ndf=2))['cbs']
    assert gan.rules['gan_loss'] == 'LSGANLoss' and gan.lr_mult == 1
    options = choose_options(game_entry('cgan'), dict(critic='features', lr_mult=2.))
    assert options == {**critics['features'].defaults, 'critic':'features', 'lr_mult':2.} and options['gan_loss'] == 'hinge'
    assert create_gan('cgan', augment=True)['cbs'].rules['augment'] == 'shift,cutout'
    with pytest.raises(ValueError, match='clip is an option of wgan-clip, not of cgan'): create_gan('cgan', clip=0.1)

class Spy(Callback):
    "What moves in which half of a batch"
    run_valid = False
    def __init__(self, order): self.order = order
    def snaps(self): return snap(self.model),snap(self.conditional_gan.critic),copy.deepcopy(list(self.opt.state_dict()['state'].values()))
    def after_pred(self): self.learn.spied.append(('pred', self.snaps()))
    def after_batch(self): self.learn.spied.append(('batch', self.snaps()))

@pytest.mark.parametrize('norm', ['batch', 'spectral'])
def test_frozen_net_does_not_move(norm):
    gan = make_gan(norm=norm)
    learn = make_learner(gan, cbs=[Spy(4), Spy(6)])
    learn.spied = []
    learn.fit(1, 1e-2)
    for i in range(0, len(learn.spied), 4):
        (_,before),(_,after_critic),_,(_,after_generator) = learn.spied[i:i+4]
        assert same(before[0], after_critic[0])                                        # the generator, in the critic's step
        assert [k for k in before[0] if not torch.equal(after_critic[0][k], after_generator[0][k])]
        params = [k for k,_ in gan.critic.named_parameters()]
        assert all(not torch.equal(before[1][k], after_critic[1][k]) for k in params)
        assert same(after_critic[1], after_generator[1])                               # the critic, in the generator's step
    assert not any(p.requires_grad for p in gan.critic.parameters())

def test_critic_gets_no_gradient_from_the_generator_step():
    class Check(Callback):
        order,run_valid = 100,False
        def before_backward(self): self.grads = [p.grad.clone() for p in self.conditional_gan.critic.parameters()]
        def after_backward(self): self.learn.equal.append(all(torch.equal(a, p.grad) for a,p in zip(self.grads, self.conditional_gan.critic.parameters())))
    learn = make_learner(make_gan(), cbs=[Check()])
    learn.equal = []
    learn.fit(1)
    assert learn.equal == [True]*4

@pytest.mark.parametrize('steps,pretrain,turns', [(1, 0, range(10)), (5, 0, (4, 9)), (3, 2, (4, 7)), (1, 7, (7, 8, 9)), (1, 20, ())])
def test_critic_only_batches(steps, pretrain, turns):
    CountBackward.n = 0
    G,D = Counted(UNet(32, ngf=2)),Counted(PatchGAN(ndf=2))
    G.model.downs[0].requires_grad_(False)                                             # a frozen layer stays frozen
    gan = ConditionalGAN(D, critic_steps=steps, pretrain=pretrain)
    learn = make_learner(gan, make_dls(bs=2, n=20), G)
    before = snap(G)
    learn.fit(1)
    turns = list(turns)
    assert np.flatnonzero(np.isfinite(gan.history['g_gan'])).tolist() == turns
    assert G.n == 10 and G.graphs == [i in turns for i in range(10)]
    assert D.n == 20 + len(turns)
    assert CountBackward.n == 20 + 2*len(turns)                                        # critic: fake and real; generator's step: through both nets
    assert [p.requires_grad for p in G.parameters()] == [False] + [True]*(len(list(G.parameters())) - 1)
    moved = any(not torch.equal(before[k], p) for k,p in G.named_parameters())
    assert moved == bool(turns)
    assert torch.equal(before['model.downs.0.0.weight'], G.model.downs[0][0].weight)

def test_critic_sees_what_the_reference_shows():
    "Fake, real, fake: with BatchNorm the order counts"
    seen = []
    gan = make_gan()
    gan.critic.register_forward_pre_hook(lambda m, xs: seen.append((xs[1].detach().clone(), xs[1].requires_grad, m.training)))
    dls = make_dls(n=4)
    learn = make_learner(gan, dls)
    learn.fit(1)
    ab = list(dls.train)[0][1]
    assert len(seen) == 3 and torch.equal(seen[0][0], seen[2][0]) and torch.equal(seen[1][0], ab)
    assert [s[1] for s in seen] == [False, False, True] and all(s[2] for s in seen)

# ---- logging and validation

def test_columns_and_validation():
    def mae(pred, targ): return (pred - targ).abs().mean()
    gan = make_gan()
    learn = make_learner(gan, metrics=mae)
    plain = make_learner(model=copy.deepcopy(learn.model), metrics=mae)
    assert learn.validate() == plain.validate()
    learn.fit(2)
    names = list(learn.recorder.metric_names)
    assert names == ['epoch', 'train_loss', 'valid_loss', 'mae', *gan.terms, 'time']
    for e,row in enumerate(learn.recorder.values):
        assert row[1] == pytest.approx(row[2])                                         # valid_loss is L1, mae is L1
        for n,v in zip(gan.terms, row[3:]): assert v == pytest.approx(np.mean(gan.history[n][4*e:4*e+4]))
    assert [m.name for m in learn.metrics] == ['mae']
    state,history = snap(gan.critic),copy.deepcopy(gan.history)
    res = learn.validate()
    assert len(res) == 2 and res[0] == pytest.approx(F.l1_loss(*learn.get_preds()).item())
    assert same(state, gan.critic.state_dict()) and gan.history == history
    assert isinstance(learn.model, UNet)

def test_train_loss_is_what_the_generator_minimises():
    gan = make_gan(lambda_l1=7.)
    learn = make_learner(gan, make_dls(n=4))
    learn.fit(1)
    h = gan.history
    assert learn.recorder.losses[0].item() == pytest.approx(h['g_gan'][0] + 7*h['g_l1'][0], rel=1e-5)

def test_plot_losses():
    gan = make_gan(critic_steps=2)
    gan.plot_losses()                                                                  # before the first batch
    make_learner(gan).fit(1)
    gan.plot_losses()
    ax = matplotlib.pyplot.gcf().axes
    assert len(ax) == len(gan.panels) == 4 and len(ax[0].lines) == 3
    gan.panels = (('d_loss', 'g_gan'),)
    gan.plot_losses(smooth=1)
    line, = [o for o in matplotlib.pyplot.gcf().axes[0].lines if o.get_label() == 'g_gan']
    assert line.get_xdata().tolist() == [1, 3] and line.get_ydata().tolist() == [o for o in gan.history['g_gan'] if np.isfinite(o)]
    matplotlib.pyplot.close('all')

def test_typed_batches():
    a,b = [make_learner(make_gan(), make_dls(typed=t)) for t in (True, False)]
    b.model.load_state_dict(a.model.state_dict()); b.conditional_gan.load_state_dict(a.conditional_gan.state_dict())
    for o in (a, b): o.fit(1)
    assert same(a.model.state_dict(), b.model.state_dict())

# ---- other callbacks

def test_fit_one_cycle_and_critic_lr():
    lrs = []
    class Rec(Callback):
        run_valid = False
        def after_batch(self): lrs.append((self.opt.hypers[-1]['lr'], self.conditional_gan.critic_opt.hypers[0]['lr']))
    learn = make_learner(make_gan(lr_mult=3.), cbs=[Rec(), GradientClip(0.1), ShowGraphless()])
    learn.fit_one_cycle(2, 1e-3, moms=(0.5, 0.5, 0.5))
    g,d = np.array(lrs).T
    np.testing.assert_allclose(d, 3*g)
    assert g.max() > 5*g[0] and learn.opt.hypers[0]['mom'] == 0.5

class ShowGraphless(Callback):
    "Stands for callbacks that look at pred, loss and the model after each batch"
    def after_batch(self): assert self.pred is not None and torch.isfinite(self.loss).all()

def test_trackers_and_logs(tmp_path):
    cbs = [SaveModelCallback(monitor='g_l1', comp=np.less, fname='best'), EarlyStoppingCallback(monitor='valid_loss', patience=10),
           ReduceLROnPlateau(monitor='valid_loss', patience=1), CSVLogger()]
    learn = make_learner(make_gan(), path=tmp_path)
    learn.fit(2, cbs=cbs)
    assert (tmp_path/'models/best.pth').exists()
    header,*rows = (tmp_path/'history.csv').read_text().splitlines()
    assert header == 'epoch,train_loss,valid_loss,' + ','.join(ConditionalGAN.terms) + ',time' and len(rows) == 2

def test_gradient_accumulation():
    "Two half batches make one step of the generator; all of its loss is scaled, the adversarial part as well"
    grads = []
    class Grab(Callback):
        order,run_valid = 100,False
        def before_step(self): grads.append([p.grad.clone() for p in self.model.parameters()])
    gan,model = make_gan(norm=None, lr_mult=1e-12),UNet(32, ngf=2)
    model.eval(); model.train = lambda mode=True: model                                # fixed statistics, so that halves add up
    for bs,cbs in (4, []), (2, [GradientAccumulation(4)]):
        learn = make_learner(gan, make_dls(bs=bs, n=4), model, cbs=cbs + [Grab()])
        learn.fit(1, 1e-12)
    assert len(grads) == 2
    for a,b in zip(*grads): torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-6)

def test_ema_like_callback():
    class EMA(Callback):
        order,run_valid = 70,False
        def before_fit(self): self.avg = copy.deepcopy(self.model)
        def after_step(self):
            for a,p in zip(self.avg.parameters(), self.model.parameters()): a.data.lerp_(p.data, 0.5)
    learn = make_learner(make_gan(critic_steps=2), cbs=[EMA()])
    learn.fit(1)
    assert all(p.isfinite().all() for p in learn.ema.avg.parameters())

def test_lr_find_puts_the_critic_back(tmp_path):
    gan = make_gan()
    learn = make_learner(gan, path=tmp_path)
    learn.fit(1)
    before = copy.deepcopy(gan.state_dict())
    learn.lr_find(num_it=6, show_plot=False, suggest_funcs=None)
    after = gan.state_dict()
    assert same(before['critic'], after['critic']) and before['n_seen'] == after['n_seen'] and before['history'] == after['history']
    for a,b in zip(before['opt']['state'].values(), after['opt']['state'].values()): assert a['step'] == b['step'] and torch.equal(a['exp_avg'], b['exp_avg'])
    learn.fit(1)
    assert gan.n_seen == 8

def test_torch_optimizer_for_the_critic():
    adam = partial(OptimWrapper, opt=torch.optim.Adam, betas=(0.5, 0.999))
    a,b = make_learner(make_gan()),make_learner(make_gan(opt_func=adam))
    b.model.load_state_dict(a.model.state_dict()); b.conditional_gan.critic.load_state_dict(a.conditional_gan.critic.state_dict())
    for o in (a, b): o.fit(2, 1e-3)
    for p,q in zip(a.conditional_gan.critic.parameters(), b.conditional_gan.critic.parameters()): torch.testing.assert_close(p, q, rtol=0, atol=1e-5)
    c = make_gan(opt_func=adam)
    c.load_state_dict(b.conditional_gan.state_dict())
    make_learner(c).fit(1)

def test_compiled_critic():
    gan = make_gan()
    gan.critic.compile(backend='aot_eager')
    learn = make_learner(gan, make_dls(n=8))
    learn.fit(1)
    assert list(gan.state_dict()['critic']) == list(PatchGAN(ndf=2).state_dict())

def test_channels_last():
    gan = make_gan()
    gan.critic.to(memory_format=torch.channels_last)
    learn = make_learner(gan, cbs=[ChannelsLast()])
    learn.fit(1)
    assert gan.critic.layers[2].weight.is_contiguous(memory_format=torch.channels_last)

# ---- precision

def test_bf16():
    gan = make_gan(critic_steps=2)
    dtypes = set()
    gan.critic.layers[-1].register_forward_hook(lambda m, i, o: dtypes.add(o.dtype))
    learn = make_learner(gan, cbs=[Autocast(torch.bfloat16)])
    learn.fit(2)
    assert dtypes == {torch.bfloat16} and not torch.is_autocast_enabled('cpu')
    assert not gan.critic_scaler.is_enabled()
    assert all(p.dtype == torch.float32 for p in gan.critic.parameters())

def test_autocast_does_not_keep_old_weights():
    "Autocast caches its half-precision copies of weights: after the critic's step the generator must be judged by the new ones"
    class Check(ConditionalGAN):
        def generator_loss(self, l, pred):
            loss = super().generator_loss(l, pred)
            with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, cache_enabled=False): fresh = self.gan_loss.generator(self.critic(l, pred))
            self.learn.pairs.append((loss.item(), fresh.item()))
            return loss
    learn = make_learner(make_gan(Check, norm=None), cbs=[Autocast(torch.bfloat16)])
    learn.pairs = []
    learn.fit(1, 1e-2)
    assert all(a == b for a,b in learn.pairs) and len(learn.pairs) == 4

@pytest.mark.parametrize('critic_steps', [1, 3])
def test_fp16_scaler(critic_steps):
    "Scaled and unscaled, the critic takes the same steps"
    torch.manual_seed(0)
    a,b = make_learner(make_gan(critic_steps=critic_steps), cbs=[HalfOnCPU()]),make_learner(make_gan(critic_steps=critic_steps), cbs=[Autocast(torch.float16)])
    b.model.load_state_dict(a.model.state_dict()); b.conditional_gan.load_state_dict(a.conditional_gan.state_dict())
    for o in (a, b): o.fit(2)
    assert a.conditional_gan.critic_scaler.is_enabled() and not b.conditional_gan.critic_scaler.is_enabled()
    for p,q in zip(a.conditional_gan.critic.parameters(), b.conditional_gan.critic.parameters()): torch.testing.assert_close(p, q, rtol=0, atol=2e-3)
    assert all(p.isfinite().all() for p in a.model.parameters())

def test_fp16_overflow_of_the_critic():
    "The critic skips its step and halves its own scale; the generator goes on"
    class Overflow(ConditionalGAN):
        def critic_loss(self, l, ab, fake):
            loss = super().critic_loss(l, ab, fake)
            loss.register_hook(lambda g: g*float('inf'))
            return loss
    gan = make_gan(Overflow)
    learn = make_learner(gan, make_dls(n=4), cbs=[HalfOnCPU()])
    D,G = [p.detach().clone() for p in gan.critic.parameters()],snap(learn.model)
    learn.fit(1)
    assert all(torch.equal(a, b) for a,b in zip(D, gan.critic.parameters()))
    assert gan.critic_scaler.get_scale() == 2.**15
    assert not same(G, learn.model.state_dict())

@pytest.mark.parametrize('mode', ['fp16', 'bf16'])
@pytest.mark.filterwarnings('ignore')
def test_mixed_precision_callback_without_cuda(mode):
    "On the CPU fastai's MixedPrecision does nothing; its order of events must still work out"
    learn = make_learner(make_gan(critic_steps=2), cbs=[MixedPrecision(mode)])
    learn.fit(1)
    assert learn.conditional_gan.n_seen == 4

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('mode', ['fp16', 'bf16'])
@pytest.mark.parametrize('critic_steps', [1, 2])
def test_mixed_precision_on_cuda(mode, critic_steps):
    dls = make_dls(device='cuda')
    gan = make_gan(critic_steps=critic_steps)
    learn = make_learner(gan, dls, cbs=[MixedPrecision(mode), ChannelsLast()])
    learn.fit(3)
    assert gan.n_seen == 12 and all(np.isfinite(gan.history['d_loss']))
    assert next(gan.critic.parameters()).is_cuda and all(p.isfinite().all() for p in learn.model.parameters())
    state = torch.load(io.BytesIO(save_bytes(gan.state_dict())), map_location='cpu', weights_only=False)
    again = make_gan(critic_steps=critic_steps)
    again.load_state_dict(state)                                                       # on the CPU; moves with its Learner
    make_learner(again, dls, cbs=[MixedPrecision(mode)]).fit(1)
    assert again.n_seen == 16

# ---- save, resume, export

def save_bytes(o):
    f = io.BytesIO()
    torch.save(o, f)
    return f.getvalue()

@pytest.mark.parametrize('norm', ['batch', 'spectral'])
def test_resume_is_exact(norm, tmp_path):
    torch.manual_seed(0)
    G,D = UNet(32, ngf=2),PatchGAN(ndf=2, norm=norm)
    def run(G, D): return make_learner(ConditionalGAN(D, critic_steps=3), model=G, path=tmp_path)
    one,two = [run(copy.deepcopy(G), copy.deepcopy(D)) for _ in range(2)]
    one.fit(2); one.fit(2)
    two.fit(2)
    two.save('half')
    state = torch.load(io.BytesIO(save_bytes(two.conditional_gan.state_dict())), weights_only=False)
    three = run(UNet(32, ngf=2), PatchGAN(ndf=2, norm=norm))
    three.load('half', weights_only=False)
    three.conditional_gan.load_state_dict(state)
    three.fit(2)
    assert same(one.model.state_dict(), three.model.state_dict())
    a,b = one.conditional_gan,three.conditional_gan
    assert same(a.critic.state_dict(), b.critic.state_dict()) and a.n_seen == b.n_seen == 16
    np.testing.assert_equal(a.history, b.history)

def test_loaded_state_is_a_copy():
    a = make_gan()
    make_learner(a).fit(1)
    state = a.state_dict()
    b = make_gan()
    b.load_state_dict(state)
    before = copy.deepcopy(state)
    make_learner(b).fit(1)
    assert same(before['critic'], a.critic.state_dict()) and a.n_seen == 4
    for x,y in zip(before['opt']['state'].values(), a.critic_opt.state_dict()['state'].values()): assert torch.equal(x['exp_avg'], y['exp_avg'])

def picture_l(i): return make_items(16)[i][0]
def picture_ab(i): return make_items(16)[i][1]

@pytest.mark.parametrize('norm', ['batch', 'spectral'])
@pytest.mark.filterwarnings('ignore')
def test_export(norm, tmp_path):
    dls = DataLoaders(*[TfmdDL(Datasets(list(o), [[picture_l], [picture_ab]]), bs=4) for o in (range(8), range(8, 12))], device=torch.device('cpu'))
    learn = Learner(dls, UNet(32, ngf=2), loss_func=F.l1_loss, path=tmp_path, cbs=make_gan(norm=norm))
    learn.remove_cb(ProgressCallback)
    learn.fit(1)
    learn.export('m.pkl')
    back = load_learner(tmp_path/'m.pkl')
    l = make_items(1)[0][0][None]
    assert torch.equal(back.model.eval()(l), learn.model.eval()(l))
    assert len(back.validate(dl=learn.dls.valid)) == 1
    assert back.conditional_gan.critic is None
    back.dls = learn.dls
    with pytest.raises(ValueError, match='its critic stayed behind'): back.fit(1)
    learn.fit(1)                                                                       # the original plays on

# ---- when it goes wrong

@pytest.mark.parametrize('part,term', [('critic', 'd_loss is nan'), ('generator', 'g_gan is inf'), ('content', 'g_l1 is nan')])
def test_not_finite(part, term):
    class Broken(ConditionalGAN):
        def critic_loss(self, l, ab, fake): return super().critic_loss(l, ab, fake)*(float('nan') if part == 'critic' and self.n_seen == 2 else 1)
        def generator_loss(self, l, pred): return super().generator_loss(l, pred)*(float('inf') if part == 'generator' and self.n_seen == 2 else 1)
    learn = make_learner(make_gan(Broken))
    if part == 'content': learn.loss_func = lambda p, t: F.l1_loss(p, t)*(float('nan') if learn.broken.n_seen == 2 else 1)
    class Keep(Callback):
        order = 100
        def after_batch(self): self.learn.last = snap(self.model)
    learn.add_cb(Keep())
    with pytest.raises(FloatingPointError, match=f'{term}.* in batch 2 of epoch 0'): learn.fit(1)
    assert learn.broken.n_seen == 2
    params = dict(learn.model.named_parameters())
    assert all(torch.equal(learn.last[k], p) for k,p in params.items())                # the generator is as after the last good batch

def test_warns_when_the_critic_wins():
    class Easy(nn.Module):
        "Knows the answer"
        def __init__(self): super().__init__(); self.w = nn.Parameter(torch.tensor(5.))
        def forward(self, l, ab): return self.w*torch.where((ab[:, :1] + ab[:, 1:]).abs() > 0.05, 1., -1.).mean((2, 3)).sign()
    class Silent(UNet):
        def forward(self, x): return super().forward(x)*0.01
    with warnings.catch_warnings(record=True) as rec:
        warnings.simplefilter('always')
        make_learner(ConditionalGAN(Easy()), model=Silent(32, ngf=2)).fit(1)
    texts = [str(w.message) for w in rec]
    assert any('The critic has won' in t for t in texts) and any('paints grey' in t for t in texts)

def test_no_warning_in_a_fair_game():
    class Fair(UNet):
        def forward(self, x): return super().forward(x) + torch.cat([x, -x], 1)*0.4
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        make_learner(make_gan(), model=Fair(32, ngf=2)).fit(1)

def test_after_an_interrupt():
    "A Ctrl-C in a critic-only forward pass leaves nothing frozen and no stray column"
    class Stop(UNet):
        stop = True
        def forward(self, x):
            if self.training and self.stop: raise KeyboardInterrupt
            return super().forward(x)
    gan = make_gan(critic_steps=2)
    learn = make_learner(gan, model=Stop(32, ngf=2))
    with pytest.raises(KeyboardInterrupt): learn.fit(1)
    assert len(learn.validate()) == 1
    assert all(p.requires_grad for p in learn.model.parameters())
    learn.model.stop = False
    learn.fit(1)
    assert len(learn.recorder.values[-1]) == 2 + len(gan.terms)

def test_bad_arguments():
    D = PatchGAN(ndf=1)
    for kwargs,text in [(dict(lambda_l1=-0.1), 'lambda_l1 must be 0 or more'), (dict(lambda_l1=float('nan')), 'lambda_l1'), (dict(lr_mult=0.), 'lr_mult must be above 0'), (dict(lr_mult=-1), 'lr_mult'),
                        (dict(critic_steps=0), 'critic_steps must be at least 1'), (dict(pretrain=-1), 'pretrain at least 0'), (dict(gan_loss='x'), 'gan_loss must be one of')]:
        with pytest.raises(ValueError, match=text): ConditionalGAN(D, **kwargs)
    with pytest.raises(ValueError, match='learning rate must be above 0'): make_learner(make_gan()).fit(1, 0.)
    with pytest.raises(ValueError, match='3 channels|4 channels'): make_learner(ConditionalGAN(PatchGAN(n_in=4, ndf=1))).fit(1)
    with pytest.raises(ValueError, match='multiples of 64'): make_learner(make_gan(), model=UNet(64, ngf=1)).fit(1)
    with pytest.raises(TypeError): WassersteinLoss(smooth=0.1)

def test_batch_of_one():
    "The published nets train on single pictures; a BatchNorm over one value says so"
    make_learner(make_gan(), make_dls(bs=1, n=2)).fit(1)
    class OnePixel(nn.Sequential):
        def forward(self, l, ab): return super().forward(torch.cat([l, ab], 1))
    D = OnePixel(nn.Conv2d(3, 4, 32), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    with pytest.raises(ValueError, match='more than 1 value per channel'): make_learner(ConditionalGAN(D), make_dls(bs=1, n=2)).fit(1)

def test_fit_flat_lin():
    learn = make_learner(make_gan())
    lrs = []
    class Rec(Callback):
        run_valid = False
        def after_batch(self): lrs.append(self.opt.hypers[-1]['lr'])
    for flat,decay in (2, 0), (0, 2), (1, 1):
        lrs.clear()
        learn.fit_flat_lin(flat, decay, 1e-3, cbs=Rec())
        i = np.arange(8)
        want = 1e-3*np.minimum(1, (8 - i)/(4*decay)) if decay else np.full(8, 1e-3)
        np.testing.assert_allclose(lrs, want, rtol=1e-6)
    for args,text in [((0, 0, 1e-3), 'at least one epoch'), ((-1, 2, 1e-3), 'at least one epoch'), ((1, 1, 0.), 'above 0')]:
        with pytest.raises(ValueError, match=text): learn.fit_flat_lin(*args)
