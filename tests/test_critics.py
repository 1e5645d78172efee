"The PatchGAN against a hand-written copy of the published one, its receptive field and its norms"
import pytest, torch
from copy import deepcopy
from torch import nn
from fastai_colorize.nets.critics import PatchGAN

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
    assert sum(p.numel() for p in c.parameters()) == sum(p.numel() for p in ref_patchgan(3, 64, nn.BatchNorm2d).parameters()) == 2_765_633
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
        c(torch.randn(1, 1, 24, 24), torch.randn(1, 2, 24, 24)).mean().backward()        # smallest picture, alone in its batch
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
