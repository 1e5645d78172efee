"""ImageNet weights: really loaded, and never silently missing. Files of weights, of this and of the first release.
LightUnet: its encoder is torchvision's, and the network copies, compiles, exports and serves threads"""
import copy, json, pickle, struct, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import pytest, torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, resnet18, resnet34

from fastai_colorize.nets.dynamic import resnet_unet
from fastai_colorize.nets.light import LightUnet, ResNetEncoder
from fastai_colorize.nets.register import create_generator, generator_split, generators
from fastai_colorize.nets.weights import load_generator, save_generator

NAME = ResNet18_Weights.DEFAULT.url.rsplit('/', 1)[1]

def same_encoder(net, state):
    "Does the encoder of `net` hold the tensors of a torchvision ResNet18?"
    body = net.encoder
    ref = resnet18()
    ref.load_state_dict(state)
    conv,*rest = list(ref.children())[:-2]
    torch.testing.assert_close(body[0].weight, conv.weight.sum(1, keepdim=True))
    for ours,theirs in zip(list(body)[1:], rest):
        for (k,a),b in zip(ours.state_dict().items(), theirs.state_dict().values()): assert torch.equal(a, b), k

def test_encoder_has_the_weights_of_the_file(tmp_path, monkeypatch):
    "A file in the place where torch keeps its downloads is what the encoder holds"
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path/'hub'/'checkpoints').mkdir(parents=True)
    torch.manual_seed(1)
    state = {k: torch.rand_like(v) if v.is_floating_point() else v for k,v in resnet18().state_dict().items()}
    torch.save(state, tmp_path/'hub'/'checkpoints'/NAME)
    same_encoder(resnet_unet('resnet18', pretrained=True), state)

def test_encoder_has_torchvisions_weights():
    path = Path(torch.hub.get_dir())/'checkpoints'/NAME
    if not path.exists(): pytest.skip(f'{NAME} is not on this machine; the test above covers the loading')
    same_encoder(resnet_unet('resnet18', pretrained=True), torch.load(path, weights_only=True))

def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    def offline(*args, **kwargs): raise URLError('no route to host')
    monkeypatch.setattr('torch.hub.download_url_to_file', offline)
    with pytest.raises(RuntimeError, match=f'(?s)could not be had.*{NAME}.*pretrained=False'):
        resnet_unet('resnet18', pretrained=True)

def test_resnet34(tmp_path):
    net = resnet_unet('resnet34', pretrained=False).eval()
    x = torch.zeros(1, 1, 64, 64)
    back = load_generator(save_generator(net, tmp_path/'w.safetensors', 'float32'))
    with torch.no_grad(): assert torch.equal(back(x), net(x))

def test_resnet50():
    "On the meta device, which holds no numbers: with them it is 1.3 GB"
    shapes = lambda net: {k: v.shape for k,v in net.state_dict().items()}
    with torch.device('meta'):
        net = resnet_unet('resnet50', pretrained=False).eval()
        assert net(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)
        assert shapes(create_generator(**net.config)) == shapes(net)

def test_int8_rounds_large_weights_only(tmp_path):
    net = resnet_unet(pretrained=False)
    back = load_generator(save_generator(net, tmp_path/'w.safetensors', 'int8')).state_dict()
    rounded = []
    for k,v in net.state_dict().items():
        if v.ndim > 1 and v.numel() >= 2**16:
            rounded.append(v.numel())
            steps = v.flatten(1).abs().amax(1)/127
            assert ((back[k] - v).flatten(1).abs().amax(1) <= .501*steps).all()
        else: assert torch.equal(back[k], v.half().float() if v.ndim > 1 else v)
    assert sum(rounded) > .98*sum(o.numel() for o in net.parameters())

def test_disk_full_leaves_the_old_weights(tmp_path, monkeypatch):
    net = resnet_unet(pretrained=False)
    path = save_generator(net, tmp_path/'w.safetensors', 'int8')
    old = path.read_bytes()
    def full(tensors, f, header): Path(f).write_bytes(b'half'); raise SafetensorError('No space left on device')
    monkeypatch.setattr('fastai_colorize.nets.weights.save_file', full)
    with pytest.raises(OSError, match='No space left'): save_generator(net, path, 'int8')
    assert path.read_bytes() == old and [o.name for o in tmp_path.iterdir()] == ['w.safetensors']

@pytest.mark.parametrize('name,kw', [
    ('resnet9', dict(ngf=4)),
    ('resnet9', dict(n_in=3, n_out=1, ngf=4, n_blocks=6)),
    ('unet', dict(size=64, norm='instance', ngf=4)),
    ('attention', dict(size=64, norm='instance', ngf=4))])
def test_cyclegan_generators_travel(name, kw, tmp_path):
    # no weights to be had: the argument has no meaning here
    net = create_generator(name, pretrained=True, **kw).eval()
    back = load_generator(save_generator(net, tmp_path/'w.safetensors', 'float32'))
    x = torch.rand(1, kw.get('n_in', 1), 64, 64)
    with torch.no_grad(): assert torch.equal(back(x), net(x))
    assert back.config == net.config == dict(generator=name, **kw)

# ---- files of weights

HERE = Path(__file__).parent

def header(path):
    with open(path, 'rb') as f: return json.loads(f.read(struct.unpack('<Q', f.read(8))[0]))['__metadata__']

OLD = sorted((HERE/'fixtures'/'run_0.1.0').glob('*/weights.safetensors'))

@pytest.mark.parametrize('path', OLD, ids=lambda o: o.parent.name)
def test_files_of_the_first_release(path, tmp_path):
    "Read, and written again as they are written now, with the same weights"
    old = header(path)
    assert old['format'] == 'fastai_colorize 1'
    net = load_generator(path)
    assert net.config == json.loads(old['recipe']) and net.metrics == json.loads(old['metrics']) and not net.training
    new = save_generator(net, tmp_path/'w.safetensors', 'float32', metrics=net.metrics, training=net.training_recipe)
    assert header(new)['format'] == 'fastai_colorize 2' and 'recipe' not in header(new)
    assert json.loads(header(new)['config']) == net.config
    back = load_generator(new)
    for name in ('config', 'metrics', 'training_recipe', 'render_size'):
        assert getattr(back, name) == getattr(net, name)
    assert all(torch.equal(a, b) for a,b in zip(back.state_dict().values(), net.state_dict().values(), strict=True))

def test_weights_of_the_fixtures_to_the_bit():
    "float16 numbers of the file are what the network holds"
    path = HERE/'fixtures'/'run_0.1.0'/'l1'/'weights.safetensors'
    net = load_generator(path).state_dict()
    with safe_open(path, 'pt') as f:
        assert set(f.keys()) == set(net)
        for k in f.keys(): assert torch.equal(net[k], f.get_tensor(k).to(net[k].dtype))

@pytest.mark.parametrize('change', [
    dict(format='fastai_colorize 3'), dict(format='fastai_colorize 1'), dict(config='{}x'),
    dict(training='{"render_size":5}'), dict(config='{"generator":"nobody"}'),
    dict(config='{"generator":"light","size":3}')])
def test_odd_headers(tmp_path, change):
    head = dict(dict(format='fastai_colorize 2', config='{"generator":"light"}', metrics='{}', training='{}'), **change)
    save_file({'w': torch.zeros(2)}, tmp_path/'w.safetensors', head)
    with pytest.raises(ValueError, match='w.safetensors'): load_generator(tmp_path/'w.safetensors')

# ---- weights of strangers

def write(path, tensors, data=b'', **head):
    "A safetensors file by hand: of each tensor (kind, shape, from, to)"
    head = dict(dict(format='fastai_colorize 2', config='{}', metrics='{}', training='{}'), **head)
    head = {'__metadata__': head, **{k: dict(dtype=d, shape=s, data_offsets=[a, b]) for k,(d,s,a,b) in tensors.items()}}
    head = json.dumps(head, separators=(',', ':')).encode()
    path.write_bytes(struct.pack('<Q', len(head)) + head + data)
    return path

LIMITED = """import resource, sys, time, torch
from fastai_colorize.nets.weights import load_generator
from fastai_colorize.nets.register import generators
list(generators)
used = int(open('/proc/self/statm').read().split()[0])*resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,)*2)
for path in sys.argv[1:]:
    t = time.monotonic()
    try: load_generator(path)
    except ValueError as e: print(e)
    else: print('loaded', path)
    assert time.monotonic() - t < 20, path
"""

@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='a limit of memory as Linux has it')
def test_a_few_bytes_take_no_memory(tmp_path):
    "Networks of gigabytes in files of a few hundred bytes, read with 300 MB to spare: a sentence for each"
    asked = ['{"generator":"unet","ngf":%s}' % o for o in (1024, 4096, 10**6, 10**4000, 1e300, 'NaN')]
    asked += ['{"generator":"unet","size":%s}' % o for o in (2**12, 2**60, 2**5000)]
    asked += ['{"generator":"resnet9","n_blocks":%s}' % o for o in (1000, 10**9)]
    asked += ['{"generator":"light","dims":[4096,4096,4096]}', '{"generator":"light","n_convs":1000000}',
              '{"generator":"light","dims":[%s]}' % ','.join('9'*10_000), '{"generator":"light","dims":%s}' % ('['*10**5)]
    asked += ['{"generator":"wide_resnet101_2","n_out":4096}', '{"generator":"resnet18","n_in":1000000000000000}', '[]',
              '{"generator":["unet"]}', '{"generator":"unet","evil":1}']
    files = [write(tmp_path/f'{i}.safetensors', {}, config=o) for i,o in enumerate(asked)]
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', LIMITED, *map(str, files)], capture_output=True, text=True)
    said = run.stdout.splitlines()
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(said) == len(files) and 'loaded' not in run.stdout and all(f.name in o for f,o in zip(files, said)), said
    assert 'do not fit the unet' in said[0] and 'numbers go up to 4,096' in said[2]

@pytest.mark.parametrize('data,tensors', [
    (b'', dict(w=('F32', [1000, 1000], 0, 4_000_000))), (bytes(8), dict(w=('F32', [1000], 0, 8))),
    (bytes(8), dict(w=('F32', [2], 0, 8), v=('F32', [2], 4, 12))), (bytes(8), dict(w=('F32', [2], 8, 0))),
    (bytes(8), dict(w=('F32', [2**62, 4], 0, 8))), (bytes(8), dict(w=('F32', [-2, -1], 0, 8))), (bytes(80), dict(w=('F32', [2], 0, 8)))],
    ids='beyond shorter overlapping backwards overflow negative rest'.split())
def test_tensors_that_do_not_fit_the_file(tmp_path, data, tensors):
    with pytest.raises(ValueError, match='w.safetensors is no safetensors file'): load_generator(write(tmp_path/'w.safetensors', tensors, data))

@pytest.mark.parametrize('change,says', [
    (lambda o: o.pop('downs.0.0.weight'), 'downs.0.0.weight is missing'),
    (lambda o: o.update(more=torch.zeros(2)), 'more is of another network'),
    (lambda o: o.update({'downs.0.0.weight': torch.zeros(2, 1, 4, 5)}), r'the shape \(2, 1, 4, 5\) instead of \(2, 1, 4, 4\)'),
    (lambda o: o.update({'downs.0.0.weight': torch.zeros(2, 1, 4, 4, dtype=torch.int8)}), 'of the kind I8'),
    (lambda o: o.update({'downs.0.0.weight': torch.zeros(2, 1, 4, 4, dtype=torch.int64)}), 'of the kind I64'),
    (lambda o: o.update({'downs.1.2.num_batches_tracked': torch.tensor(1.)}), 'of the kind F32'),
    (lambda o: o.update({'downs.0.0.weight.scale': torch.ones(2)}), 'of the kind F32 with a scale')])
def test_tensors_of_another_network(tmp_path, change, says):
    net = create_generator('unet', size=32, ngf=2)
    state = dict(net.state_dict())
    change(state)
    head = dict(format='fastai_colorize 2', config=json.dumps(net.config), metrics='{}', training='{}')
    save_file(state, tmp_path/'w.safetensors', head)
    with pytest.raises(ValueError, match=f'do not fit the unet that its config names: .*{says}'): load_generator(tmp_path/'w.safetensors')

def test_a_network_that_needs_its_numbers(tmp_path):
    "One of the user's own, whose building reads a tensor, so that it cannot be built without numbers"
    class Ramp(torch.nn.Module):
        def __init__(self, n=3):
            super().__init__()
            self.steps,self.conv = torch.linspace(0, 1, n).tolist(),torch.nn.Conv2d(1, 2, 1)
    generators('ramp_of_a_test')(Ramp)
    net = create_generator('ramp_of_a_test', n=4)
    back = load_generator(save_generator(net, tmp_path/'w.safetensors', 'float32'))
    assert back.steps == net.steps and torch.equal(back.conv.weight, net.conv.weight)
    net.config['n'] = 10**9
    with pytest.raises(ValueError, match='n=1000000000, and numbers go up to 4,096'): save_generator(net, tmp_path/'w.safetensors')

def test_a_network_without_config(tmp_path):
    with pytest.raises(ValueError, match='Conv2d has no `config`'):
        save_generator(torch.nn.Conv2d(1, 2, 1), tmp_path/'w.safetensors')
    assert not list(tmp_path.iterdir())

# ---- by name

def test_generators_by_name():
    assert list(generators)[:5] == ['light', 'unet', 'attention', 'resnet9', 'resnet18']
    with pytest.raises(ValueError, match="The generator must be one of light, unet, .*got 'vgg16'"):
        create_generator('vgg16')
    assert generators['unet'].facts == dict(one_size=True)
    assert generators['light'].facts == dict(pretrained=True)
    assert generators['resnet34'].facts == dict(pretrained=True, by_name=True)

@pytest.mark.parametrize('name', ['light', 'resnet18'])
def test_split_is_encoder_and_rest(name):
    net = create_generator(name)
    enc,rest = generator_split(net)
    assert {id(p) for p in enc} == {id(p) for p in net.encoder.parameters()}
    assert sorted(map(id, enc + rest)) == sorted(map(id, net.parameters()))

# ---- LightUnet

SMALL = dict(dims=(16, 12, 8, 6), n_convs=1, pretrained=False)

@pytest.fixture(scope='module')
def light():
    torch.manual_seed(0)
    return LightUnet(**SMALL).eval()

@pytest.mark.parametrize('make,n_in', [(resnet18, 3), (resnet34, 3), (resnet18, 1)])
def test_encoder_is_torchvisions(make, n_in):
    "Same names, same features to the bit; in grey as if R = G = B"
    torch.manual_seed(0)
    theirs,ours = make().eval(),ResNetEncoder(make.__name__, n_in, pretrained=False).eval()
    state = {k: v for k,v in theirs.state_dict().items() if not k.startswith('fc.')}
    if n_in == 1: state['conv1.weight'] = state['conv1.weight'].sum(1, keepdim=True)
    ours.load_state_dict(state)
    x = torch.rand(2, n_in, 64, 96)
    rgb = x.expand(-1, 3, -1, -1)
    y = theirs.relu(theirs.bn1(theirs.conv1(rgb)))
    want = [y]
    y = theirs.maxpool(y)
    for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4): want.append(y := stage(y))
    for a,b in zip(ours(x), want, strict=True):
        if n_in == 3: assert torch.equal(a, b)
        else: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

def test_light_has_the_weights_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path/'hub'/'checkpoints').mkdir(parents=True)
    state = {k: torch.rand_like(v) if v.is_floating_point() else v for k,v in resnet18().state_dict().items()}
    torch.save(state, tmp_path/'hub'/'checkpoints'/NAME)
    ours = create_generator('light', pretrained=True).encoder.state_dict()
    torch.testing.assert_close(ours.pop('conv1.weight'), state['conv1.weight'].sum(1, keepdim=True))
    for k,v in ours.items(): assert torch.equal(v, state[k]), k
    assert ours.keys() == {k for k in state if not k.startswith(('fc.', 'conv1.weight'))}

def test_light_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    def offline(*args, **kwargs): raise URLError('no route to host')
    monkeypatch.setattr('torch.hub.download_url_to_file', offline)
    with pytest.raises(RuntimeError, match=f'(?s)could not be had.*{NAME}.*pretrained=False'): LightUnet()

@pytest.mark.parametrize('head', [2, 4, 8])
@pytest.mark.parametrize('h,w', [(32, 32), (33, 47), (65, 130)])
def test_light_any_size(head, h, w):
    net = LightUnet(head=head, **SMALL).eval()
    with torch.no_grad(): out = net(torch.randn(2, 1, h, w))
    assert out.shape == (2, 2, h, w) and out.isfinite().all()

def test_light_written_out(light):
    "Decoder and head by hand, from the encoder's features"
    import torch.nn.functional as F
    x = torch.randn(1, 1, 64, 80)
    with torch.no_grad():
        f = light.encoder(x)
        y = f[4]
        for up,skip in zip(light.decoder, (f[3], f[2], f[1], f[0]), strict=True):
            y = F.interpolate(up.reduce(y), skip.shape[-2:], mode='bilinear')
            y = up.convs(torch.cat([y, skip], 1))
        assert y.shape[-2:] == (32, 40)                                    # a half
        assert torch.equal(F.interpolate(light.out(y), (64, 80), mode='bilinear'), light(x))

def test_light_copies_and_pickles(light):
    x = torch.randn(1, 1, 32, 48)
    net = copy.deepcopy(light)
    net(x).mean().backward()
    for twin in copy.deepcopy(net),pickle.loads(pickle.dumps(net)): assert torch.equal(twin(x), light(x))

def test_light_compiles_exports_and_is_laid_out(light):
    x = torch.randn(2, 1, 64, 48)
    with torch.no_grad():
        want = light(x)
        torch.testing.assert_close(torch.compile(light, fullgraph=True, backend='aot_eager')(x), want)
        last,Dim = dict(memory_format=torch.channels_last),torch.export.Dim
        torch.testing.assert_close(copy.deepcopy(light).to(**last)(x.to(**last)), want)
        dims = {0: Dim('b', min=1, max=64), 2: Dim('h', min=33, max=512), 3: Dim('w', min=33, max=512)}
        exported = torch.export.export(light, (x,), dynamic_shapes=(dims,)).module()
        for shape in ((2, 1, 64, 48), (5, 1, 99, 50)):
            y = torch.randn(shape)
            torch.testing.assert_close(exported(y), light(y))
        with torch.autocast('cpu', torch.bfloat16): torch.testing.assert_close(light(x).float(), want, rtol=.1, atol=.1)

def test_light_serves_threads(light):
    "Different sizes at the same time give what they give alone"
    xs = [torch.randn(1, 1, s, s + 8) for s in (32, 40, 64, 96)]
    def predict(x):
        with torch.no_grad(): return light(x)
    want = [predict(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for i,out in enumerate(pool.map(predict, xs*10)): assert torch.equal(out, want[i % 4])

def test_light_travels_and_trains(tmp_path):
    torch.manual_seed(0)
    net = create_generator('light', head=2, **{k: v for k,v in SMALL.items() if k != 'pretrained'})
    assert create_generator(**net.config).config == net.config == json.loads(json.dumps(net.config))
    x,y = torch.rand(4, 1, 64, 64)*2 - 1,torch.rand(4, 2, 64, 64) - .5
    opt = torch.optim.AdamW(net.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        loss = (net(x) - y).abs().mean()
        opt.zero_grad(); loss.backward(); opt.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    back = load_generator(save_generator(net, tmp_path/'w.safetensors', 'float32'))
    with torch.no_grad(): assert torch.equal(back(x), net.eval()(x))

def test_light_file_needs_torch_alone(tmp_path):
    path = save_generator(LightUnet(**SMALL), tmp_path/'w.safetensors')
    code = ("import sys; from fastai_colorize.nets.weights import load_generator; "
            f"load_generator({str(path)!r}); print(*sys.modules)")
    names = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {'fastai', 'torchvision', 'pandas', 'matplotlib', 'skimage', 'sklearn', 'IPython'}
    assert 'torch' in names and not heavy & set(names)

@pytest.mark.parametrize('kw,match', [
    (dict(head=3), '2, 4 or 8, got 3'), (dict(head=16), 'got 16'),
    (dict(arch='resnet50'), "resnet18, resnet34, got 'resnet50'"), (dict(dims=(8, 8)), '4 levels'),
    (dict(dims=(8, 8, 8, 0)), 'at least 1 convolution'), (dict(n_convs=0), 'at least 1 convolution')])
def test_light_bad_options(kw, match):
    with pytest.raises(ValueError, match=match): LightUnet(pretrained=False, **kw)
    with pytest.raises(ValueError, match='for 3 channels'): LightUnet(n_in=2)

@pytest.mark.parametrize('shape', [(1, 1, 31, 64), (1, 1, 64, 16), (1, 3, 64, 64), (1, 64, 64)])
def test_light_bad_pictures(light, shape):
    with pytest.raises(ValueError, match=r'takes \(B, 1, H, W\) with H and W from 32 up'): light(torch.zeros(shape))
