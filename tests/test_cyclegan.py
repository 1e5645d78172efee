"The Callback against the algorithm written out in plain PyTorch, its memory, and beside other callbacks"
import copy, random, numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from torch import nn
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientAccumulation
import fastai.callback.schedule
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner, load_learner
from PIL import Image
from fastai_colorize.games.adversarial import gan_adam
from fastai_colorize.nets.critics import PatchGAN
from fastai_colorize.games.cyclegan import CycleGAN, PhotoPool, noise_state, replay
from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.nets.weights import create_generator
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.train.callbacks import Autocast
from fastai_colorize.learner import colorize_learner
from fastai_colorize.nets.resnet import ResNetGenerator
from fastai_colorize.nets.unet import UNet

pytestmark = [pytest.mark.filterwarnings('ignore:The generator paints grey', 'ignore:The critic has won'),   # these nets have had no time to learn
              pytest.mark.usefixtures('one_thread')]

def make_dls(bs=2, n=8, size=64, dtype=torch.float32):
    "Training batches of L and of another picture's Lab; validation batches of L and ab"
    g = torch.Generator().manual_seed(0)
    l = torch.rand(n + bs, 1, size, size, generator=g, dtype=dtype)*2 - 1
    ab = torch.cat([l, -l], 1)*0.5 + 0.1*torch.randn(n + bs, 2, size, size, generator=g, dtype=dtype)
    lab = torch.cat([l, ab], 1)
    return DataLoaders(DataLoader(list(zip(l[:n], lab[:n].roll(bs, 0))), bs=bs), DataLoader(list(zip(l[n:], ab[n:])), bs=bs), device=torch.device('cpu'))

NETS = dict(resnet=lambda n_in, n_out: ResNetGenerator(n_in, n_out, ngf=2, n_blocks=2), unet=lambda n_in, n_out: UNet(64, n_in, n_out, ngf=2),   # BatchNorm and dropout
            instance=lambda n_in, n_out: UNet(64, n_in, n_out, ngf=2, norm='instance'))

def make_gan(kind='resnet', norm='instance', dtype=torch.float32, **kwargs):
    nets = NETS[kind](3, 1),PatchGAN(3, ndf=2, norm=norm),PatchGAN(1, ndf=2, norm=norm)
    return CycleGAN(*[o.to(dtype) for o in nets], **kwargs)

def make_learner(gan=None, dls=None, kind='resnet', model=None, cbs=(), **kwargs):
    learn = Learner(dls or make_dls(), model or NETS[kind](1, 2), loss_func=F.l1_loss, **{'opt_func': gan_adam, 'lr': 2e-4, **kwargs})
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda log: None
    return learn.add_cbs(([make_gan(kind) if gan is None else gan]) + list(cbs))

class Seed(Callback):
    "The same dropout in both loops"
    order,run_valid = -20,False
    def before_batch(self): torch.manual_seed(self.train_iter)

def same(a, b): return all(torch.equal(a[k], b[k]) for k in a)
def nets(learn): return learn.model,learn.cycle_gan.grey,learn.cycle_gan.critic.color,learn.cycle_gan.critic.grey

# ---- exactness

def plain_cyclegan(G, Fg, DC, DG, batches, epochs, lr, gan_loss='lsgan', cycle=10., detail=10., identity=0., pool_size=50, rngs=()):
    "The algorithm with nothing but PyTorch, and one backward pass for both generators"
    adam = lambda *ms: torch.optim.Adam([p for m in ms for p in m.parameters()], lr, betas=(0.5, 0.999), eps=1e-8)
    opt_G,opt_D,pools = adam(G, Fg),adam(DC, DG),([], [])
    compare = F.mse_loss if gan_loss == 'lsgan' else F.binary_cross_entropy_with_logits
    judge = lambda out, label: compare(out, torch.full_like(out, label))
    lab = lambda l, ab: torch.cat([l, ab], 1)
    def draw(pool, rng, new):
        out = []
        for o in new:
            if len(pool) < pool_size: pool.append(o)
            elif pool_size and torch.rand((), generator=rng) < 0.5:
                i = int(torch.randint(pool_size, (), generator=rng))
                o,pool[i] = pool[i],o
            out.append(o)
        return torch.stack(out).detach()
    for m in (G, Fg, DC, DG): m.train()
    i,logs = 0,[]
    for _ in range(epochs):
        for l,y in batches:
            torch.manual_seed(i); i += 1
            yl,yab,none = y[:, :1],y[:, 1:],l[:, :0]
            fake,fake_l = G(l),Fg(y)
            opt_D.zero_grad()
            c,g = draw(pools[0], rngs[0], lab(l, fake).detach()),draw(pools[1], rngs[1], fake_l.detach())
            d = [judge(DC(c[:, :1], c[:, 1:]), 0.),judge(DC(yl, yab), 1.),judge(DG(g, none), 0.),judge(DG(l, none), 1.)]
            (sum(d)/2).backward()
            opt_D.step()
            for p in (*DC.parameters(), *DG.parameters()): p.requires_grad = False
            opt_G.zero_grad()
            terms = dict(g_gan=judge(DC(l, fake), 1.), cycle_l=F.l1_loss(Fg(lab(l, fake)), l), g_gan_grey=judge(DG(fake_l, none), 1.),
                         detail=F.l1_loss(fake_l, yl), cycle_lab=F.l1_loss(lab(fake_l, G(fake_l)), y))
            loss = terms['g_gan'] + terms['g_gan_grey'] + cycle*(terms['cycle_l'] + terms['cycle_lab']) + 0.5*detail*terms['detail']
            if identity:
                terms['identity'] = F.l1_loss(G(yl), yab) + F.l1_loss(Fg(lab(l, torch.zeros_like(yab))), l)
                loss = loss + cycle*identity*terms['identity']
            loss.backward()
            opt_G.step()
            for p in (*DC.parameters(), *DG.parameters()): p.requires_grad = True
            logs.append({k: v.item() for k,v in dict(terms, d_fake=d[0], d_real=d[1], d_grey_fake=d[2], d_grey_real=d[3], loss=loss).items()})
    return logs,opt_G,opt_D,pools

@pytest.mark.parametrize('kind,norm,kwargs', [
    ('resnet', 'instance', {}), ('unet', 'batch', {}), ('instance', None, dict(gan_loss='bce', lambda_detail=0., pool_size=0)),
    ('resnet', 'batch', dict(lambda_identity=0.5, lambda_cycle=5., pool_size=3)), ('unet', 'instance', dict(lambda_identity=0.5))])
def test_exact(kind, norm, kwargs):
    "Several steps of both generators, both critics, pools and optimizers, and every term"
    torch.manual_seed(0)
    gan,G = make_gan(kind, norm, torch.float64, **{'pool_size': 4, **kwargs}),NETS[kind](1, 2).double()
    ours = G,gan.grey,gan.critic.color,gan.critic.grey
    refs = [copy.deepcopy(o) for o in ours]
    rngs = [torch.Generator() for _ in range(2)]
    for r,pool in zip(rngs, gan.pools): r.set_state(pool.rng.get_state())
    first,dls = [copy.deepcopy(o.state_dict()) for o in ours],make_dls(dtype=torch.float64)
    kw = {k.removeprefix('lambda_'): v for k,v in {'pool_size': 4, **kwargs}.items()}
    logs,opt_G,opt_D,pools = plain_cyclegan(*refs, list(dls.train), 3, 2e-4, rngs=rngs, **kw)
    learn = make_learner(gan, dls, model=G, cbs=[Seed()])
    learn.fit(3, 2e-4)
    for a,b,start in zip(ours, refs, first):
        for (k,p),q in zip(a.state_dict().items(), b.state_dict().values()):   # parameters and BatchNorm statistics
            noise = k.endswith('bias') and not any('running' in o for o in a.state_dict())   # before InstanceNorm its gradient is 0 but for rounding, which Adam blows up
            torch.testing.assert_close(p, q, rtol=0, atol=1e-6 if noise else 1e-9, msg=k)
        assert all(not torch.equal(p, start[k]) for k,p in a.named_parameters() if 'bias' not in k)
    for net,ref,opt,opt_ref in (G, refs[0], learn.opt, opt_G), (gan.grey, refs[1], gan.grey_opt, opt_G), (gan.critic, nn.ModuleList(refs[2:]), gan.critic_opt, opt_D):
        for p,q in zip(net.parameters(), ref.parameters()):
            a,b = opt.opt.state[p],opt_ref.state[q]
            assert a['step'] == b['step'] == 12
            for k in 'exp_avg', 'exp_avg_sq': torch.testing.assert_close(a[k], b[k], rtol=0, atol=1e-9)
    for n in logs[0]:
        if n != 'loss': np.testing.assert_allclose(gan.history[n], [o[n] for o in logs], rtol=0, atol=1e-9)
    assert gan.g_total.item() == pytest.approx(logs[-1]['loss'], abs=1e-9)
    for pool,ref in zip(gan.pools, pools):
        assert len(pool.photos) == len(ref) == kw['pool_size']
        for a,b in zip(pool.photos, ref): torch.testing.assert_close(a, b, rtol=0, atol=1e-9)

class Grads(Callback):
    "What the optimizers are about to apply"
    order,run_valid = 4,False
    def before_step(self): self.learn.grads = [p.grad.clone() for m in nets(self.learn)[:2] for p in m.parameters()]

@pytest.mark.parametrize('kind', list(NETS))
def test_gradients_of_the_single_backward(kind):
    torch.manual_seed(0)
    gan,G = make_gan(kind, 'instance', torch.float64, lambda_identity=0.5),NETS[kind](1, 2).double()
    G2,F2 = copy.deepcopy(G),copy.deepcopy(gan.grey)
    learn = make_learner(gan, make_dls(n=2, dtype=torch.float64), model=G, cbs=[Seed(), Grads()])
    learn.fit(1)
    l,y = learn.dls.train.one_batch()
    critic = gan.critic                                                                # as it was when it judged
    torch.manual_seed(0)
    fake,fake_l = G2(l),F2(y)
    judge = lambda out: F.mse_loss(out, torch.ones_like(out))
    loss = judge(critic(l, fake)) + 10*F.l1_loss(F2(torch.cat([l, fake], 1)), l) + judge(critic(fake_l, l[:, :0])) + 5*F.l1_loss(fake_l, y[:, :1])
    loss = loss + 10*F.l1_loss(torch.cat([fake_l, G2(fake_l)], 1), y) + 5*F.l1_loss(G2(y[:, :1]), y[:, 1:]) + 5*F.l1_loss(F2(F.pad(l, (0, 0, 0, 0, 0, 2))), l)
    loss.backward()
    for g,p in zip(learn.grads, [*G2.parameters(), *F2.parameters()], strict=True): torch.testing.assert_close(g, p.grad, rtol=0, atol=1e-9)

# ---- memory and passes

class SavedBytes:
    "The most bytes that autograd keeps for backward passes at one time, parameters aside"
    def __init__(self, *nets): self.own,self.alive,self.now,self.peak = {p.untyped_storage().data_ptr() for m in nets for p in m.parameters()},{},0,0
    class Kept:
        def __init__(self, meter, x):
            self.meter,self.x,self.key = meter,x,x.untyped_storage().data_ptr()
            if not meter.alive.get(self.key): meter.now += x.untyped_storage().nbytes()
            meter.alive[self.key] = meter.alive.get(self.key, 0) + 1
            meter.peak = max(meter.peak, meter.now)
        def __del__(self):
            self.meter.alive[self.key] -= 1
            if not self.meter.alive[self.key]: self.meter.now -= self.x.untyped_storage().nbytes()
    def pack(self, x): return x if x.untyped_storage().data_ptr() in self.own else self.Kept(self, x)
    def unpack(self, o): return o.x if isinstance(o, self.Kept) else o
    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack)
        self.hooks.__enter__()
        return self
    def __exit__(self, *args): self.hooks.__exit__(*args)

def memory(kind, size, make=None):
    "Peak of saved bytes in a step: the Callback's, and that of the plain loop"
    torch.manual_seed(0)
    make = make or NETS[kind]
    four = make(1, 2),make(3, 1),PatchGAN(3, ndf=2, norm='instance'),PatchGAN(1, ndf=2, norm='instance')
    dls = make_dls(bs=1, n=2, size=size)
    with SavedBytes(*four) as plain: plain_cyclegan(*four, list(dls.train), 1, 2e-4, rngs=[torch.Generator()]*2)
    for o in four: o.requires_grad_(True)
    learn = make_learner(CycleGAN(*four[1:]), dls, model=four[0])
    with SavedBytes(*four) as ours: learn.fit(1)
    assert not ours.now
    return ours.peak,plain.peak

@pytest.mark.parametrize('kind', list(NETS))
def test_memory(kind):
    ours,plain = memory(kind, 64)
    print(f'{kind}: {ours/1e6:.2f} MB of {plain/1e6:.2f} MB kept for backward, {ours/plain:.3f}')
    assert ours <= 0.4*plain
    assert memory(kind, 64) == (ours, plain)                                           # exact, and repeatable

class Counted(nn.Module):
    def __init__(self, model): super().__init__(); self.model,self.passes = model,[]
    def forward(self, *x):
        y = self.model(*x)
        if self.training: self.passes.append(y.requires_grad)
        return y

@pytest.mark.parametrize('identity', [0., 0.5])
def test_passes(identity):
    "Each generator: its picture without a graph, the cycle, and its picture again; each critic: fake, real, and the generator's"
    G,Fg,DC,DG = [Counted(o) for o in (NETS['resnet'](1, 2), NETS['resnet'](3, 1), PatchGAN(3, ndf=2, norm='instance'), PatchGAN(1, ndf=2, norm='instance'))]
    make_learner(CycleGAN(Fg, DC, DG, lambda_identity=identity), model=G).fit(1)
    once = [False, True, *([True] if identity else []), True]
    assert G.passes == Fg.passes == once*4
    assert DC.passes == DG.passes == [True, True, True]*4

def test_replay_is_the_same_pass():
    net,x = NETS['unet'](1, 2),torch.randn(2, 1, 64, 64)
    noise = noise_state(x)
    with torch.no_grad(): first = net(x)
    stats,rng = copy.deepcopy(net.state_dict()),torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        with replay(net, noise): 1/0
    with replay(net, noise): assert torch.equal(net(x), first)
    assert same(stats, net.state_dict()) and torch.equal(torch.get_rng_state(), rng)
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm2d))

# ---- who moves when

class Spy(Callback):
    run_valid = False
    def __init__(self, order): self.order = order
    def snap(self, event): self.learn.spied.append((event, [copy.deepcopy(m.state_dict()) for m in nets(self.learn)]))
    def after_pred(self): self.snap('pred')
    def before_step(self): self.snap('step')
    def after_step(self): self.snap('stepped')

def test_frozen_net_does_not_move():
    learn = make_learner(cbs=[Spy(4), Spy(6)])
    learn.spied = []
    learn.fit(1, 1e-2)
    events = [e for e,_ in learn.spied]
    assert events == ['pred', 'pred', 'step', 'step', 'stepped', 'stepped']*4
    def moved(a, b): return [not same(x, y) for x,y in zip(a, b)]
    for i in range(0, len(events), 6):
        before,critics,at_step,grey,color,_ = [s for _,s in learn.spied[i:i+6]]
        assert moved(before, critics) == [False, False, True, True]                    # the critics step
        assert moved(critics, at_step) == [False]*4                                    # all backward passes
        assert moved(at_step, grey) == [False, True, False, False]                     # G_gray
        assert moved(grey, color) == [True, False, False, False]                       # G_color
    gan = learn.cycle_gan
    assert not any(p.requires_grad for p in gan.critic.parameters())
    assert all(p.requires_grad for m in nets(learn)[:2] for p in m.parameters())

def test_learning_rates_and_frozen_layers():
    lrs = []
    class Rec(Callback):
        run_valid = False
        def after_batch(self): lrs.append([o.hypers[-1]['lr'] for o in (self.opt, self.cycle_gan.grey_opt, self.cycle_gan.critic_opt)])
    model = NETS['resnet'](1, 2)
    model.layers[0].requires_grad_(False)
    first = model.layers[0].weight.clone()
    learn = make_learner(make_gan(lr_mult=0.5), model=model, cbs=[Rec()])
    learn.fit_flat_lin(1, 1, 1e-3)
    g,f,d = np.array(lrs).T
    np.testing.assert_allclose(f, g); np.testing.assert_allclose(d, g/2)
    assert g[0] == 1e-3 and g[-1] < 5e-4
    assert torch.equal(model.layers[0].weight, first) and not model.layers[0].weight.requires_grad and model.layers[3].weight.requires_grad

def test_stale_gradients_are_dropped():
    class Stop(Callback):
        order,run_valid = 100,False
        def before_step(self): raise KeyboardInterrupt
    learn = make_learner()
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Stop())
    class Look(Callback):
        run_valid = False
        def before_step(self): self.learn.grad = [p.grad.clone() for p in self.model.parameters()]
    learn.dls.train.n = 2
    learn.fit(1, 1e-12, cbs=Look())
    a = learn.grad
    learn.opt.zero_grad()
    learn.fit(1, 1e-12, cbs=Look())
    for p,q in zip(a, learn.grad): torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-3)

# ---- logging, validation, other callbacks

def test_columns_validation_and_curves():
    import matplotlib; matplotlib.use('agg')
    gan = make_gan(lambda_identity=0.1)
    learn = make_learner(gan)
    plain = Learner(learn.dls, copy.deepcopy(learn.model), loss_func=F.l1_loss)
    with plain.no_bar(): assert learn.validate() == plain.validate()
    learn.fit(2)
    assert list(learn.recorder.metric_names) == ['epoch', 'train_loss', 'valid_loss', *CycleGAN.terms, 'identity', 'time']
    for e,row in enumerate(learn.recorder.values):
        for n,v in zip(gan.terms, row[2:]): assert v == pytest.approx(np.mean(gan.history[n][4*e:4*e+4]))
    h = gan.history
    want = [a + b + 10*(c + d) + 5*e + f for a,b,c,d,e,f in zip(*[h[k] for k in ('g_gan', 'g_gan_grey', 'cycle_l', 'cycle_lab', 'detail', 'identity')])]
    assert gan.g_total.item() == pytest.approx(want[-1], rel=1e-5)
    assert learn.validate()[0] == pytest.approx(F.l1_loss(*learn.get_preds()).item())
    gan.plot_losses()
    assert len(matplotlib.pyplot.gcf().axes) == 6
    matplotlib.pyplot.close('all')

def test_lr_find_puts_all_back(tmp_path):
    learn = make_learner(path=tmp_path)
    learn.fit(1)
    gan = learn.cycle_gan
    before = copy.deepcopy(gan.state_dict())
    learn.lr_find(num_it=6, show_plot=False, suggest_funcs=None)
    after = gan.state_dict()
    for k in 'critic', 'grey': assert same(before[k], after[k])
    for a,b in zip(before['pools'], after['pools']): assert torch.equal(a['rng'], b['rng']) and all(torch.equal(x, y) for x,y in zip(a['photos'], b['photos']))
    assert before['history'] == after['history']

def test_what_cannot_work(photo_folder):
    def fit(*cbs, dls=None, **kwargs): make_learner(make_gan(**kwargs), dls, cbs=cbs).fit(1)
    with pytest.raises(ValueError, match='larger batch instead of GradientAccumulation'): fit(GradientAccumulation(4))
    class Half(Callback):
        def before_fit(self): self.learn.scaler = torch.amp.GradScaler('cpu')
    with pytest.raises(ValueError, match='float32 or bfloat16'): fit(Half())
    paired = ColorDataLoaders.from_folder(photo_folder, size=64, bs=4, num_workers=0, check=False)
    with pytest.raises(ValueError, match='unpaired=True; this batch has 2 channels'): fit(dls=paired)
    for n in 'lambda_cycle', 'lambda_detail', 'lambda_identity':
        for v in -1., float('nan'), float('inf'):
            with pytest.raises(ValueError, match=f'{n} must be 0 or more'): make_gan(**{n: v})
    with pytest.raises(ValueError, match='pool must be 0 or more'): make_gan(pool_size=-1)
    with pytest.raises(ValueError, match="got 'dcgan'"): make_gan(gan_loss='dcgan')

def test_not_finite():
    class Broken(CycleGAN):
        def _backward(self, loss, weight=1.): return super()._backward(loss, weight)*(float('nan') if self.n_seen == 2 else 1)
    gan = Broken(NETS['resnet'](3, 1), PatchGAN(3, ndf=2, norm=None), PatchGAN(1, ndf=2, norm=None))
    learn = make_learner(gan)
    with pytest.raises(FloatingPointError, match='g_gan is nan .* in batch 2 of epoch 0'): learn.fit(1)

# ---- precision

@pytest.mark.parametrize('kind', list(NETS))
def test_bf16(kind):
    "Half precision reaches every weight, and points where single precision points"
    def one(cbs):
        torch.manual_seed(0)
        learn = make_learner(make_gan(kind), make_dls(n=2), kind, cbs=[Seed(), Grads(), *cbs])
        learn.fit(1)
        return learn
    a,b = one([]),one([Autocast()])
    assert not torch.is_autocast_enabled('cpu') and all(p.dtype == torch.float32 for m in nets(b) for p in m.parameters())
    flat = [torch.cat([g.flatten() for g in o.grads]) for o in (a, b)]
    assert all(g.abs().sum() > 0 for g in b.grads if g.ndim > 1)
    assert F.cosine_similarity(*flat, 0) > 0.9 and 0.8 < flat[1].norm()/flat[0].norm() < 1.25
    dtypes = set()
    b.cycle_gan.grey.register_forward_hook(lambda m, i, o: dtypes.add(o.dtype))
    b.fit(2)
    assert dtypes == {torch.bfloat16} and all(p.isfinite().all() for m in nets(b) for p in m.parameters())

@pytest.mark.filterwarnings('ignore:CUDA is not available')
def test_mixed_precision_callback_without_cuda():
    "On the CPU fastai's MixedPrecision does nothing"
    learn = make_learner(cbs=[MixedPrecision('fp16')])
    learn.fit(1)
    assert learn.cycle_gan.n_seen == 4

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_on_cuda():
    dls = make_dls()
    dls.to(torch.device('cuda'))
    learn = make_learner(make_gan('unet'), dls, 'unet', cbs=[Autocast()])
    learn.fit(2)
    assert all(next(m.parameters()).is_cuda and p.isfinite().all() for m in nets(learn) for p in m.parameters())

# ---- save, resume, previews, export

@pytest.fixture
def unpaired(photo_folder):
    return lambda **kw: ColorDataLoaders.from_folder(photo_folder, **{**dict(size=64, bs=4, valid_pct=.25, num_workers=0, check=False, unpaired=True), **kw})

class Stop(Callback):
    def __init__(self, *at): self.at = at
    def after_step(self):
        if (self.epoch, self.iter) == self.at: raise KeyboardInterrupt

def run(dls, out, resume=False, cbs=None, n=3, bf16=False):
    random.seed(0); np.random.seed(0); torch.manual_seed(0)
    model = create_generator('unet', size=64, ngf=2)                                   # with dropout and BatchNorm
    gan = CycleGAN(UNet(64, 3, 1, ngf=2), PatchGAN(3, ndf=2, norm='batch'), PatchGAN(1, ndf=2), pool_size=3)
    learn = colorize_learner(dls, model, out=out, resume=resume, bf16=bf16, cbs=[gan], opt_func=gan_adam)
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_lin(n, 0, 2e-4, cbs=cbs)
    return learn

@pytest.mark.parametrize('at,bf16', [((1, 0), False), ((1, 2), True), ((2, 1), False)])
def test_resume_is_bit_equal(unpaired, tmp_path, at, bf16):
    dls = unpaired()
    rng = dls.train.rng.getstate()
    whole = run(dls, tmp_path/'whole', bf16=bf16)
    dls.train.rng.setstate(rng)
    with pytest.raises(KeyboardInterrupt): run(dls, tmp_path/'parts', cbs=Stop(*at), bf16=bf16)
    parts = run(dls, tmp_path/'parts', resume=True, bf16=bf16)
    for a,b in zip(nets(whole), nets(parts)): assert same(a.state_dict(), b.state_dict())
    a,b = whole.cycle_gan.state_dict(),parts.cycle_gan.state_dict()
    for k in 'opt', 'grey_opt':
        for x,y in zip(a[k]['state'].values(), b[k]['state'].values()): assert same(x, y)
    for x,y in zip(a['pools'], b['pools']):
        assert torch.equal(x['rng'], y['rng']) and len(x['photos']) == len(y['photos']) == 3 and all(torch.equal(p, q) for p,q in zip(x['photos'], y['photos']))
    assert a['history'] == b['history'] and a['n_seen'] == b['n_seen']
    read = lambda o: pd.read_csv(tmp_path/o/'history.csv').drop(columns='time')
    pd.testing.assert_frame_equal(read('whole'), read('parts'))
    assert set(CycleGAN.terms) <= set(read('whole').columns)
    samples = sorted(o.name for o in (tmp_path/'parts'/'samples').iterdir())
    assert samples == [f'{k}_{i:03d}.png' for k in ('epoch', 'grey') for i in range(3)]
    assert Image.open(tmp_path/'parts'/'samples'/'grey_002.png').size == Image.open(tmp_path/'parts'/'samples'/'epoch_002.png').size
    torch.load(tmp_path/'parts'/'state.pt', weights_only=True)

def test_previews_show_the_grey(unpaired):
    torch.manual_seed(0)
    learn = run(unpaired(), None, n=1)
    l,ab = [o[:2].as_subclass(torch.Tensor) for o in learn.dls.valid.one_batch()]
    grid = learn.cycle_gan.preview(l, ab)
    assert grid.shape == (192, 128, 3) and grid.dtype == np.uint8
    assert np.ptp(grid[64:128].astype(int), axis=2).max() <= 1 and np.ptp(grid[:64].astype(int), axis=2).max() > 50   # a grey row under the photographs

def test_the_model_maps_l_to_ab_everywhere(unpaired, photo_folder, tmp_path):
    learn = run(unpaired(), None, n=1)
    learn.path = tmp_path
    preds,targs = learn.get_preds()
    assert preds.shape == targs.shape and preds.shape[1] == 2
    assert learn.validate()[0] == pytest.approx(F.l1_loss(preds, targs).item(), rel=1e-5)
    train,_ = learn.get_preds(ds_idx=0)
    assert train.shape == (len(learn.dls.train_ds), 2, 64, 64)
    learn.show_results(max_n=2)
    file = next(photo_folder.rglob('*.png'))
    with learn.no_bar(): assert learn.predict(file)[0].shape[-2:] == (64, 64)
    im = Colorizer.from_learner(learn).colorize(file)
    assert im.size == Image.open(file).size
    learn.export()
    again = load_learner(tmp_path/'export.pkl')
    assert again.cycle_gan.grey is None and not again.cycle_gan.pools
    with again.no_bar(): torch.testing.assert_close(again.predict(file)[1], learn.predict(file)[1])
    assert str(photo_folder) not in (tmp_path/'export.pkl').read_bytes().decode('latin1')

def test_pool_follows_size_and_device():
    pool = PhotoPool(2)
    for size in (8, 8, 8, 16): assert pool(torch.zeros(1, 3, size, size)).shape == (1, 3, size, size)
    assert [o.shape[-1] for o in pool.photos] == [16]
    x = torch.rand(2, 1, 4, 4, requires_grad=True)
    out = PhotoPool(50)(x*1)
    assert torch.equal(out, x) and not out.requires_grad
    assert torch.equal(PhotoPool(0)(x), x)

def test_pool_forgets_nothing_it_was_shown():
    "Half of the time the newest; a picture leaves when it has been shown again"
    torch.manual_seed(1)
    pool,shown = PhotoPool(5),[]
    for i in range(400): shown += pool(torch.full((1, 1, 1, 1), float(i))).flatten().tolist()
    new = np.mean([s == i for i,s in enumerate(shown)][5:])
    assert 0.4 < new < 0.6 and max(shown.count(s) for s in shown) <= 2
    assert sorted(set(shown) | {o.item() for o in pool.photos}) == list(range(400))

def test_generators_of_both_kinds_in_the_learner(unpaired):
    for name,kw in ('resnet9', dict(ngf=2, n_blocks=1)), ('unet', dict(size=64, ngf=2, norm='instance')), ('resnet18', {}):
        model = create_generator(name, **kw)
        learn = colorize_learner(unpaired(), model, cbs=[make_gan()], opt_func=gan_adam)
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 2e-4)
        assert learn.cycle_gan.n_seen == len(learn.dls.train)

def test_compiled():
    a,b = [make_learner(make_gan(), make_dls(n=4)) for _ in range(2)]
    for x,y in zip(nets(a), nets(b)): y.load_state_dict(x.state_dict())
    b.model.compile(backend='eager')
    for o in (a, b): o.fit(1)
    for x,y in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(x, y)

# ---- does it learn?

@pytest.mark.slow
def test_it_learns(real_photos, tmp_path):
    "In minutes on a CPU: the cycle closes, and on held-out pairs the colours get nearer than they were"
    random.seed(0); np.random.seed(0); torch.manual_seed(0)
    dls = ColorDataLoaders.from_files(real_photos, size=64, bs=4, num_workers=0, unpaired=True, cache=tmp_path)
    net = lambda n_in, n_out: create_generator('resnet9', n_in=n_in, n_out=n_out, ngf=8, n_blocks=3)
    gan = CycleGAN(net(3, 1), PatchGAN(3, ndf=8, norm='instance'), PatchGAN(1, ndf=8, norm='instance'))
    learn = colorize_learner(dls, net(1, 2), cbs=gan, opt_func=gan_adam)
    with learn.no_bar():
        names,start = ['l1', *(m.name for m in learn.metrics)],learn.validate()
        learn.fit_flat_lin(3, 0, 5e-4)
        end = learn.validate()
    for n,a,b in zip(names, start, end): print(f'{n:25s} {a:8.4f} {b:8.4f}')
    for k in 'cycle_l', 'cycle_lab', 'detail':
        first,last = np.mean(gan.history[k][:20]),np.mean(gan.history[k][-20:])
        print(f'{k:25s} {first:8.4f} {last:8.4f}')
        assert last < 0.7*first
    assert end[0] < 0.5*start[0] and end[1] > start[1] + 3                             # L1, and PSNR in dB
