"The U-Nets and CycleGAN's ResNet against hand-written copies of the published ones, and under copy, compile and export"
import pickle, pytest, torch
from copy import deepcopy
from torch import nn
from fastai_colorize.nets.resnet import ResNetGenerator
from fastai_colorize.nets.unet import UNet, AttentionUNet, init_normal

class RefBlock(nn.Module):
    "One level of pix2pix's U-Net, written as the paper's code does: each level wraps the next"
    def __init__(self, outer, inner, n_in=None, sub=None, outermost=False, drop=False):
        super().__init__()
        self.outermost = outermost
        down = [nn.Conv2d(n_in or outer, inner, 4, 2, 1, bias=False)]
        if not outermost: down.insert(0, nn.LeakyReLU(0.2, True))
        if sub is not None and not outermost: down.append(nn.BatchNorm2d(inner))
        up_in = inner if sub is None else 2*inner
        up = [nn.ReLU(True), nn.ConvTranspose2d(up_in, outer, 4, 2, 1, bias=outermost)]
        up.append(nn.Tanh() if outermost else nn.BatchNorm2d(outer))
        if drop: up.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*down, *([] if sub is None else [sub]), *up)

    def forward(self, x): return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)

def ref_unet(size, n_in, n_out, ngf=64):
    n = size.bit_length() - 1
    block = RefBlock(8*ngf, 8*ngf)
    for _ in range(n-5): block = RefBlock(8*ngf, 8*ngf, sub=block, drop=True)
    for m in (4, 2, 1): block = RefBlock(m*ngf, 2*m*ngf, sub=block)
    return RefBlock(n_out, ngf, n_in=n_in, sub=block, outermost=True)

def twins(size=64, ngf=4):
    ours,ref = UNet(size, n_in=3, n_out=3, ngf=ngf).double(),ref_unet(size, 3, 3, ngf).double()
    a,b = ours.state_dict(),ref.state_dict()
    assert [v.shape for v in a.values()] == [v.shape for v in b.values()]
    ref.load_state_dict(dict(zip(b, a.values())))
    return ours,ref

def leaves(model, x):
    "Output of every layer, in the order in which they run"
    outs = []
    def keep(m, args, out): outs.append((type(m), out.detach().clone()))
    hooks = [m.register_forward_hook(keep) for m in model.modules() if not list(m.children())]
    model(x)
    for h in hooks: h.remove()
    return outs

def test_published_size():
    with torch.device('meta'): ours,ref = UNet(256, n_in=3, n_out=3),ref_unet(256, 3, 3)
    count = lambda m: sum(p.numel() for p in m.parameters())
    assert count(ours) == count(ref) == 54_413_955
    assert [p.shape for p in ours.parameters()] == [p.shape for p in ref.parameters()]

@pytest.mark.parametrize('size', [32, 64, 128])
@pytest.mark.parametrize('train', [False, True])
def test_layer_by_layer(size, train):
    torch.manual_seed(0)
    ours,ref = twins(size)
    ours.train(train); ref.train(train)
    x = torch.rand(2, 3, size, size, dtype=torch.float64)*2 - 1
    outs = []
    for m in (ours, ref):
        torch.manual_seed(1)                     # the same dropout
        outs.append(leaves(m, x))
    assert [t for t,_ in outs[0]] == [t for t,_ in outs[1]]
    for (_,a),(_,b) in zip(*outs): torch.testing.assert_close(a, b, rtol=0, atol=1e-12)

def test_same_gradients():
    torch.manual_seed(0)
    ours,ref = twins()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)*2 - 1
    for m in (ours, ref):
        torch.manual_seed(1)
        m(x).pow(2).mean().backward()
    for a,b in zip(ours.parameters(), ref.parameters()): torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)

def test_init():
    torch.manual_seed(0)
    m = AttentionUNet(32, ngf=16)
    for mod in m.modules():
        large = isinstance(mod, (nn.Conv2d, nn.ConvTranspose2d)) and mod.weight.numel() > 5000
        if large: assert abs(mod.weight.std() - 0.02) < 0.002
        if getattr(mod, 'bias', None) is not None: assert not mod.bias.any()
    lin = init_normal(nn.Linear(200, 200), std=0.1)
    assert abs(lin.weight.std() - 0.1) < 0.005 and not lin.bias.any()

@pytest.mark.parametrize('cls', [UNet, AttentionUNet])
class TestBoth:
    def test_copies(self, cls):
        m = cls(32, ngf=4)
        x = torch.randn(2, 1, 32, 32)
        m(x).mean().backward()
        for c in deepcopy(m), pickle.loads(pickle.dumps(m)):
            assert torch.equal(c.eval()(x), m.eval()(x))
        with torch.no_grad():
            for p in m.parameters(): p.zero_()
        assert not torch.equal(c(x), m(x))

    def test_compiles_in_one_graph(self, cls):
        m = cls(32, ngf=4).eval()
        x = torch.randn(2, 1, 32, 32)
        torch.testing.assert_close(torch.compile(m, fullgraph=True, backend='aot_eager')(x), m(x))

    def test_exports(self, cls):
        m = cls(32, ngf=4).eval()
        shapes = {0: torch.export.Dim('batch', min=1, max=64)},
        ep = torch.export.export(m, (torch.randn(2, 1, 32, 32),), dynamic_shapes=shapes)
        x = torch.randn(5, 1, 32, 32)
        torch.testing.assert_close(ep.module()(x), m(x))

    def test_precision_and_memory_format(self, cls):
        m = cls(32, ngf=4).eval()
        x = torch.randn(2, 1, 32, 32)
        want = m(x)
        m = m.to(memory_format=torch.channels_last)
        torch.testing.assert_close(m(x.to(memory_format=torch.channels_last)), want)
        with torch.autocast('cpu', torch.bfloat16): torch.testing.assert_close(m(x).float(), want, rtol=0, atol=1e-2)

    @pytest.mark.parametrize('size', [1, 16, 31, 96, -32, 32., '32'])
    def test_bad_sizes(self, cls, size):
        with pytest.raises(ValueError, match='power of two from 32 up'): cls(size)

    @pytest.mark.parametrize('shape', [(1, 1, 33, 32), (1, 1, 16, 16), (1, 1, 32, 48), (1, 2, 32, 32)])
    def test_bad_pictures(self, cls, shape):
        with pytest.raises(ValueError, match=r'takes \(B, 1, H, W\) with H and W multiples of 32'):
            cls(32, ngf=1)(torch.zeros(shape))

    def test_one_picture_trains(self, cls):
        m = cls(32, ngf=2)
        m(torch.randn(1, 1, 32, 32)).mean().backward()
        assert all(p.grad.isfinite().all() for p in m.parameters())

def test_attention_maps_leave_no_trace():
    m = AttentionUNet(32, ngf=4)
    x = torch.randn(2, 1, 32, 32)
    maps = m.attention_maps(x)
    assert m.training and not any(len(g._forward_hooks) for g in m.gates)
    m.compile(backend='aot_eager')               # the maps come from the plain forward also then
    m(x)
    assert [t.shape for t in m.attention_maps(x)] == [t.shape for t in maps]
    assert all(0 <= t.min() and t.max() <= 1 and not t.requires_grad for t in maps)

def test_gates_see_the_picture():
    torch.manual_seed(0)
    m = AttentionUNet(32, ngf=8).eval()
    for g in m.gates: nn.init.normal_(g.psi.weight, 0, 5.); nn.init.normal_(g.skip.weight, 0, 0.5)
    a,b = m.attention_maps(torch.randn(1, 1, 32, 32)),m.attention_maps(torch.randn(1, 1, 32, 32))
    assert all((x - y).abs().max() > 1e-3 for x,y in zip(a, b))

# ---- InstanceNorm, and the ResNet

def ref_unet_instance(net):
    "`net` with each norm layer replaced by the statistics of one photo, written out"
    class Norm(nn.Module):
        def forward(self, x):
            mean,var = x.mean((2, 3), keepdim=True),x.var((2, 3), unbiased=False, keepdim=True)
            return (x - mean)/(var + 1e-5).sqrt()
    net = deepcopy(net)
    for m in list(net.modules()):
        for name,child in m.named_children():
            if isinstance(child, nn.InstanceNorm2d): setattr(m, name, Norm())
    return net

def test_instance_norm():
    torch.manual_seed(0)
    net = UNet(64, 3, 1, ngf=4, norm='instance').double()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(net.eval()(x), ref_unet_instance(net).eval()(x), rtol=0, atol=1e-12)
    assert torch.equal(net(x)[:1], net(x[:1])) or (net(x)[:1] - net(x[:1])).abs().max() < 1e-12
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert all(m.bias is not None for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)))
    with pytest.raises(ValueError, match="batch, instance, got None"): UNet(32, norm=None)

class RefResBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        conv = lambda: [nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3), nn.InstanceNorm2d(dim)]
        self.conv_block = nn.Sequential(*conv(), nn.ReLU(True), *conv())
    def forward(self, x): return x + self.conv_block(x)

def ref_resnet(n_in, n_out, ngf=64, n_blocks=9):
    "The generator of the CycleGAN paper (its section 7.2), with padding layers of their own"
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(n_in, ngf, 7), nn.InstanceNorm2d(ngf), nn.ReLU(True)]
    for m in (1, 2): layers += [nn.Conv2d(m*ngf, 2*m*ngf, 3, 2, 1), nn.InstanceNorm2d(2*m*ngf), nn.ReLU(True)]
    layers += [RefResBlock(4*ngf) for _ in range(n_blocks)]
    for m in (4, 2):
        nf = m*ngf//2
        layers += [nn.ConvTranspose2d(2*nf, nf, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(nf), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, n_out, 7), nn.Tanh())

def test_resnet_as_published():
    with torch.device('meta'): ours,ref = ResNetGenerator(3, 3),ref_resnet(3, 3)
    count = lambda m: sum(p.numel() for p in m.parameters())
    assert count(ours) == count(ref) == 11_378_179
    assert [p.shape for p in ours.parameters()] == [p.shape for p in ref.parameters()]
    torch.manual_seed(0)
    ours,ref = ResNetGenerator(3, 1, ngf=4).double(),ref_resnet(3, 1, ngf=4).double()
    ref.load_state_dict(dict(zip(ref.state_dict(), ours.state_dict().values())))
    x = torch.rand(2, 3, 32, 48, dtype=torch.float64)*2 - 1
    kept = lambda m: [o for t,o in leaves(m, x) if t is not nn.ReflectionPad2d]
    for a,b in zip(kept(ours), kept(ref), strict=True): torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    for m in (ours, ref): m(x).pow(2).mean().backward()
    for a,b in zip(ours.parameters(), ref.parameters()): torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)

def test_resnet_init_copies_compiles_exports():
    torch.manual_seed(0)
    m = ResNetGenerator(ngf=16, n_blocks=2)
    for mod in m.modules():
        if isinstance(mod, (nn.Conv2d, nn.ConvTranspose2d)):
            assert not mod.bias.any()
            if mod.weight.numel() > 5000: assert abs(mod.weight.std() - 0.02) < 0.002
    m,x = ResNetGenerator(ngf=4, n_blocks=1).eval(),torch.randn(2, 1, 32, 32)
    m(x).mean().backward()
    assert torch.equal(pickle.loads(pickle.dumps(m))(x), m(x))
    torch.testing.assert_close(torch.compile(deepcopy(m), fullgraph=True, backend='eager')(x), m(x))
    torch.testing.assert_close(torch.export.export(m, (x,)).module()(x), m(x))
    want = m(x)
    with torch.autocast('cpu', torch.bfloat16): torch.testing.assert_close(m(x).float(), want, rtol=0, atol=5e-2)

@pytest.mark.parametrize('shape', [(1, 1, 33, 32), (1, 1, 4, 32), (1, 2, 32, 32)])
def test_resnet_bad_pictures(shape):
    with pytest.raises(ValueError, match=r'takes \(B, 1, H, W\) with H and W multiples of 4, from 8 up'):
        ResNetGenerator(ngf=1)(torch.zeros(shape))
