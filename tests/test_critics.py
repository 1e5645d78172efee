"""The PatchGAN against a hand-written copy of the published one, its receptive field and its norms;
the critic on frozen features against the same written out with torchvision, and what must not happen to its body"""
import pickle
from copy import deepcopy

import pytest, torch, torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from fastai_colorize.base.color import merge_lab
from fastai_colorize.nets.critics import Augment, FeatureBody, FeatureCritic, PatchGAN, random_cutout, random_shift
from fastai_colorize.nets.register import create_critic, critics

def ref_patchgan(n_in, ndf, norm):
    "pix2pix's 70×70 discriminator, line by line"
    bias = norm is nn.InstanceNorm2d
    return nn.Sequential(
        nn.Conv2d(n_in, ndf, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(ndf, 2*ndf, 4, 2, 1, bias=bias), norm(2*ndf), nn.LeakyReLU(0.2),
        nn.Conv2d(2*ndf, 4*ndf, 4, 2, 1, bias=bias), norm(4*ndf), nn.LeakyReLU(0.2),
        nn.Conv2d(4*ndf, 8*ndf, 4, 1, 1, bias=bias), norm(8*ndf), nn.LeakyReLU(0.2),
        nn.Conv2d(8*ndf, 1, 4, 1, 1))

@pytest.mark.parametrize('norm,layer', [('batch', nn.BatchNorm2d), ('instance', nn.InstanceNorm2d)])
def test_layer_by_layer(norm, layer):
    torch.manual_seed(0)
    ours,ref = PatchGAN(ndf=8, norm=norm).double(),ref_patchgan(3, 8, layer).double()
    ref.load_state_dict(dict(zip(ref.state_dict(), ours.state_dict().values())))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    y = x
    assert [type(m) for m in ours.layers] == [type(m) for m in ref]
    for a,b in zip(ours.layers, ref):
        x,y = a(x),b(y)
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)

def test_published_size():
    c = PatchGAN()
    for net in (c, ref_patchgan(3, 64, nn.BatchNorm2d)): assert sum(p.numel() for p in net.parameters()) == 2_765_633
    with torch.no_grad(): assert c(torch.zeros(1, 1, 256, 256), torch.zeros(1, 2, 256, 256)).shape == (1, 1, 30, 30)

@pytest.mark.parametrize('n_layers,field', [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_receptive_field(n_layers, field):
    "From gradients, with batch statistics fixed (in training mode BatchNorm spreads a little of everything everywhere)"
    torch.manual_seed(0)
    c = PatchGAN(ndf=2, n_layers=n_layers).double().eval()
    size = 2*field + 32
    l,ab = [torch.randn(1, n, size, size, dtype=torch.float64, requires_grad=True) for n in (1, 2)]
    out = c(l, ab)
    out[0, 0, out.shape[2]//2, out.shape[3]//2].backward()
    for t in (l, ab):
        hit = t.grad[0].abs().amax(0) > 0
        for d in (0, 1):
            idx = hit.any(d).nonzero()
            assert idx.max() - idx.min() + 1 == field

def test_init():
    torch.manual_seed(0)
    for m in PatchGAN(ndf=16).modules():
        if isinstance(m, nn.Conv2d) and m.weight.numel() > 5000: assert abs(m.weight.std() - 0.02) < 0.002
        if isinstance(m, nn.BatchNorm2d): assert abs(m.weight.mean() - 1) < 0.02 and not m.bias.any()

@pytest.mark.parametrize('norm', ['batch', 'instance', 'layer', 'spectral', None])
class TestNorms:
    def test_does_one_picture_see_the_others(self, norm):
        torch.manual_seed(0)
        c = PatchGAN(ndf=4, norm=norm)
        for _ in range(20): c(torch.randn(2, 1, 32, 32), torch.randn(2, 2, 32, 32))      # lets the spectral norm settle
        l,ab = torch.randn(2, 1, 32, 32, requires_grad=True),torch.randn(2, 2, 32, 32)
        c(l, ab)[0].sum().backward()
        assert bool(l.grad[1].abs().max() > 1e-8) == (norm == 'batch')

    def test_trains_copies_and_loads(self, norm):
        c = PatchGAN(ndf=4, norm=norm)
        # smallest picture, alone in its batch
        c(torch.randn(1, 1, 24, 24), torch.randn(1, 2, 24, 24)).mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in c.parameters())
        d,e = deepcopy(c).eval(),PatchGAN(ndf=4, norm=norm).eval()
        e.load_state_dict(c.state_dict())
        l,ab = torch.randn(2, 1, 40, 24),torch.randn(2, 2, 40, 24)
        want = c.eval()(l, ab)
        assert torch.equal(d(l, ab), want) and torch.equal(e(l, ab), want)

    def test_frozen_critic_passes_gradients_on(self, norm):
        c = PatchGAN(ndf=4, norm=norm).requires_grad_(False)
        ab = torch.randn(2, 2, 32, 32, requires_grad=True)
        c(torch.randn(2, 1, 32, 32), ab).mean().backward()
        assert ab.grad.abs().max() > 0 and all(p.grad is None for p in c.parameters())

    def test_compiles(self, norm):
        c = PatchGAN(ndf=4, norm=norm).eval()
        l,ab = torch.randn(2, 1, 32, 32),torch.randn(2, 2, 32, 32)
        torch.testing.assert_close(torch.compile(c, backend='aot_eager')(l, ab), c(l, ab))

def test_bad_input():
    c = PatchGAN(ndf=1)
    l,ab = torch.zeros(1, 1, 32, 32),torch.zeros(1, 2, 32, 32)
    with pytest.raises(ValueError, match='3 channels in all'): c(l, l)
    with pytest.raises(ValueError, match='3 channels in all'): c(ab, ab)
    with pytest.raises(ValueError, match='of one size'): c(l, ab[..., :30])
    with pytest.raises(ValueError, match='at least 24x24, got 23x32'): c(l[:, :, :23], ab[:, :, :23])
    with pytest.raises(ValueError, match='norm must be one of'): PatchGAN(norm='none')
    assert PatchGAN(n_in=4, ndf=1)(ab, ab).shape[1] == 1
    assert c(l[:, :, :24, :24], ab[:, :, :24, :24]).shape == (1, 1, 1, 1)

# ---- augmentation

def test_augment_is_off_by_default_and_in_evaluation():
    l,ab = torch.randn(2, 1, 32, 32),torch.randn(2, 2, 32, 32)
    plain,changed = PatchGAN(ndf=4, norm=None),PatchGAN(ndf=4, norm=None, augment='shift,cutout')
    changed.load_state_dict(plain.state_dict())                       # no state of its own
    assert torch.equal(plain(l, ab), plain(l, ab))
    assert not torch.equal(changed(l, ab), changed(l, ab))            # drawn in each call
    assert torch.equal(changed.eval()(l, ab), plain(l, ab))

def test_augment_comes_from_the_seed_of_torch():
    x = torch.randn(3, 3, 32, 40)
    torch.manual_seed(5); a = Augment()(x)
    torch.manual_seed(5); b = Augment()(x)
    assert torch.equal(a, b)

@pytest.mark.parametrize('change', [random_shift, random_cutout])
def test_gradients_pass_through_what_is_left(change):
    x = torch.randn(4, 2, 16, 24, dtype=torch.float64, requires_grad=True)
    y = change(x)
    assert y.shape == x.shape
    y.pow(2).sum().backward()
    kept = x.grad != 0
    assert torch.equal(x.grad[kept], 2*x.detach()[kept]) and 0 < kept.sum() < kept.numel()

def test_augment_bad_names():
    with pytest.raises(ValueError, match="shift and cutout, with a comma between them, got 'color'"):
        Augment('color,shift')
    with pytest.raises(ValueError, match="got 'flip'"): create_critic('patch', ndf=1, augment='flip')
    assert Augment(' shift , cutout ').kinds == ['shift', 'cutout'] and Augment(None).kinds == []

# ---- the critic on frozen features

@pytest.fixture(scope='module')
def feature_critic():
    torch.manual_seed(0)
    return FeatureCritic(nf=8, pretrained=False)

def test_features_written_out():
    "torchvision's ResNet18 with forward hooks, and heads of plain convolutions"
    torch.manual_seed(0)
    net = resnet18().eval().double()
    c = FeatureCritic(nf=8, augment='', pretrained=False).double().eval()
    c.body.net.net.load_state_dict({k: v for k,v in net.state_dict().items() if not k.startswith(('layer4', 'fc'))})
    l,ab = torch.rand(2, 1, 64, 96).double()*2 - 1,torch.rand(2, 2, 64, 96).double() - .5
    rgb = merge_lab(l, ab)
    mean,std = [torch.tensor(o)[None,:,None,None] for o in ((.485, .456, .406), (.229, .224, .225))]
    x,maps = net.maxpool(net.relu(net.bn1(net.conv1((rgb - mean)/std)))),[]
    for stage,head in zip((net.layer1, net.layer2, net.layer3), c.heads):
        x = stage(x)
        h = F.leaky_relu(F.conv2d(x, head[0].weight, head[0].bias, padding=1), .2)
        h = F.leaky_relu(F.conv2d(h, head[2].weight, head[2].bias, padding=1), .2)
        maps.append(F.conv2d(h, head[4].weight, head[4].bias))
    out = c(l, ab)
    assert out.shape == (2, 3*16*24)
    for a,b in zip(c.maps(l, ab), maps): torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    # each head has a third
    for f in (lambda o: o.mean(), lambda o: F.relu(1 - o).mean(), lambda o: F.softplus(o).mean()):
        torch.testing.assert_close(f(out), sum(f(o) for o in maps)/3, rtol=0, atol=1e-10)

@pytest.mark.parametrize('h,w', [(32, 32), (50, 71), (100, 64)])
def test_every_head_has_a_third_at_any_size(feature_critic, h, w):
    l,ab = torch.zeros(1, 1, h, w),torch.zeros(1, 2, h, w)
    n = feature_critic.maps(l, ab)[0].numel()
    assert feature_critic(l, ab).shape == (1, 3*n)

def test_body_is_no_part_of_the_critic(feature_critic):
    c = deepcopy(feature_critic)
    before = deepcopy(c.body.net.state_dict())
    names = {n.split('.')[0] for n,_ in c.named_parameters()}
    assert names == {'heads'} == {k.split('.')[0] for k in c.state_dict()}
    assert sum(p.numel() for p in c.parameters()) < 60_000
    c.train().requires_grad_(True)
    opt = torch.optim.Adam(c.parameters(), .1)
    c(torch.randn(2, 1, 32, 32), torch.randn(2, 2, 32, 32)).mean().backward()
    opt.step()
    assert c.heads.training and not any(m.training for m in c.body.net.modules())
    assert all(not p.requires_grad and p.grad is None for p in c.body.net.parameters())
    assert all(torch.equal(v, before[k]) for k,v in c.body.net.state_dict().items())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in c.parameters())

def test_generator_gets_gradients_from_a_frozen_critic(feature_critic):
    c = deepcopy(feature_critic).requires_grad_(False)
    ab = (torch.rand(2, 2, 32, 32) - .5).mul(.5).requires_grad_()
    c(torch.zeros(2, 1, 32, 32), ab).mean().backward()
    assert ab.grad.isfinite().all() and ab.grad.abs().max() > 0 and all(p.grad is None for p in c.parameters())

def test_gradient_through_colour_and_features():
    "Against differences, in double precision"
    torch.manual_seed(0)
    c = FeatureCritic(nf=2, augment='', pretrained=False).double().eval()
    l,ab = torch.zeros(1, 1, 32, 32).double(),(torch.rand(1, 2, 32, 32).double() - .5).mul(.2).requires_grad_()
    c(l, ab).mean().backward()
    d = torch.randn_like(ab)*1e-6
    with torch.no_grad(): moved = (c(l, ab + d).mean() - c(l, ab - d).mean())/2
    torch.testing.assert_close((ab.grad*d).sum(), moved, rtol=1e-4, atol=1e-14)

def test_features_under_bf16(feature_critic):
    torch.manual_seed(0)
    c = deepcopy(feature_critic)
    c.augment.kinds = []
    l,ab = torch.rand(4, 1, 64, 64)*2 - 1,(torch.rand(4, 2, 64, 64) - .5).requires_grad_()
    for _ in range(20): c(l, ab)                        # lets the spectral norms settle
    want = c.eval()(l, ab)
    with torch.autocast('cpu', torch.bfloat16): got = c(l, ab.bfloat16())
    torch.testing.assert_close(got.float(), want, rtol=.1, atol=.05)
    c.train()
    with torch.autocast('cpu', torch.bfloat16): loss = c(l, ab).float().mean()
    loss.backward()
    assert ab.grad.isfinite().all() and all(p.grad.isfinite().all() for p in c.parameters())

def test_features_copies_and_loads(feature_critic):
    c,l,ab = deepcopy(feature_critic).eval(),torch.randn(2, 1, 40, 64),torch.randn(2, 2, 40, 64)*.2
    want = c(l, ab)
    assert torch.equal(deepcopy(c)(l, ab), want)
    x = torch.rand(1, 3, 64, 64)
    body = pickle.loads(pickle.dumps(c.body))           # torch does not pickle spectral norms, so not the heads
    assert all(torch.equal(a, b) for a,b in zip(body(x), c.body(x))) and not any(m.training for m in body.net.modules())
    other = FeatureCritic(nf=8, pretrained=False).eval()
    other.body = c.body                                 # the body is not in the state: it comes from ImageNet
    other.load_state_dict(c.state_dict())
    assert torch.equal(other(l, ab), want)

def test_double_backward_for_a_gradient_penalty(feature_critic):
    ab = (torch.rand(2, 2, 32, 32) - .5).requires_grad_()
    g, = torch.autograd.grad(feature_critic(torch.zeros(2, 1, 32, 32), ab).sum(), ab, create_graph=True)
    ((g.flatten(1).norm(dim=1) - 1)**2).mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in feature_critic.parameters())
    feature_critic.zero_grad()

@pytest.mark.parametrize('name', ['vgg11', 'mobilenet_v3_small', 'regnet_y_400mf'])
def test_other_bodies(name):
    c = FeatureCritic(name, nf=4, pretrained=False)
    assert c(torch.zeros(1, 1, 64, 64), torch.zeros(1, 2, 64, 64)).shape == (1, 3*16*16)

def test_features_bad_input(feature_critic, tmp_path, monkeypatch):
    l,ab = torch.zeros(1, 1, 32, 32),torch.zeros(1, 2, 32, 32)
    with pytest.raises(ValueError, match='at least 32x32, got 31x32'): feature_critic(l[:,:,:31], ab[:,:,:31])
    with pytest.raises(ValueError, match=r'takes L of shape'): feature_critic(ab, ab)
    with pytest.raises(ValueError, match="no classifier 'resnet19'.*resnet18"): FeatureCritic('resnet19')
    with pytest.raises(ValueError, match='swin_t has no features at 1/4, 1/8 and 1/16'):
        FeatureBody('swin_t', pretrained=False)
    with pytest.raises(ValueError, match='inception_v3 has no features at'):
        FeatureBody('inception_v3', pretrained=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    def offline(*args, **kwargs): raise OSError('no route to host')
    monkeypatch.setattr('torch.hub.download_url_to_file', offline)
    with pytest.raises(RuntimeError, match='resnet18-f37072fd.pth'): FeatureCritic()

# ---- by name

def test_critics_by_name():
    assert {'patch', 'features'} <= set(critics)
    assert any(isinstance(m, nn.GroupNorm) for m in create_critic('patch', norm='layer', ndf=2).modules())
    # has no norm to choose
    assert isinstance(create_critic('features', norm='layer', nf=2, pretrained=False), FeatureCritic)
    with pytest.raises(ValueError, match="The critic must be one of patch, features.*got 'jury'"): create_critic('jury')
