"ImageNet weights: really loaded, and never silently missing."
from pathlib import Path
from urllib.error import URLError

import pytest, torch
from safetensors import SafetensorError
from torchvision.models import ResNet18_Weights, resnet18

from fastai_colorize.nets.weights import create_generator, load_generator, save_generator
from fastai_colorize.nets.dynamic import resnet_unet

NAME = ResNet18_Weights.DEFAULT.url.rsplit('/', 1)[1]

def same_encoder(net, state):
    "Does the encoder of `net` hold the tensors of a torchvision ResNet18?"
    body = net.layers[0]
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
    with pytest.raises(RuntimeError, match=f'(?s)could not be had.*{NAME}.*pretrained=False'): resnet_unet('resnet18', pretrained=True)

@pytest.mark.parametrize('name', ['resnet34', 'resnet50'])
def test_other_resnets(name, tmp_path):
    net = resnet_unet(name, pretrained=False).eval()
    x = torch.zeros(1, 1, 64, 64)
    back = load_generator(save_generator(net, tmp_path/'w.safetensors', 'float32'))
    with torch.no_grad(): assert torch.equal(back(x), net(x))

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
    monkeypatch.setattr('fastai_colorize.generators.save_file', full)
    with pytest.raises(OSError, match='No space left'): save_generator(net, path, 'int8')
    assert path.read_bytes() == old and [o.name for o in tmp_path.iterdir()] == ['w.safetensors']

@pytest.mark.parametrize('name,kw', [('resnet9', dict(ngf=4)), ('resnet9', dict(n_in=3, n_out=1, ngf=4, n_blocks=6)), ('unet', dict(size=64, norm='instance', ngf=4)),
                                     ('attention', dict(size=64, norm='instance', ngf=4))])
def test_cyclegan_generators_travel(name, kw, tmp_path):
    net = create_generator(name, pretrained=True, **kw).eval()                          # no weights to be had: the argument has no meaning here
    back = load_generator(save_generator(net, tmp_path/'w.safetensors', 'float32'))
    x = torch.rand(1, kw.get('n_in', 1), 64, 64)
    with torch.no_grad(): assert torch.equal(back(x), net(x))
    assert back.recipe == net.recipe == dict(generator=name, **kw)
