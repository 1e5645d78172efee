"""Does it matter by which filter a photo is made small for the network?

    python benchmarks/filters.py FOLDER [--weights FILE] [--size 96] [--n 240]

Each photo is seen twice: shrunk at once by Pillow's bicubic filter, as `Colorizer` does, and in two steps of which the second is bilinear, as random crops once were in training.
The weights of that time: `git show 403053f:fastai_colorize/weights/l1.safetensors > first.safetensors`."""
from argparse import ArgumentParser

import torch, torch.nn.functional as F

from fastai_colorize.color import merge_lab, split_lab, to_uint8
from fastai_colorize.data import LoadPhoto
from fastai_colorize.evaluate import hardware
from fastai_colorize.generators import load_generator, packaged_weights
from fastai_colorize.metrics import colourfulness, psnr, ssim_ab
from fastai_colorize.photos import find_photos

parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument('folder')
parser.add_argument('--weights', default=packaged_weights())
parser.add_argument('--size', type=int, default=96)
parser.add_argument('--n', type=int, default=240)
args = parser.parse_args()

net,files = load_generator(args.weights),find_photos(args.folder)[:args.n]
load = lambda side: torch.stack([LoadPhoto(side)(f).as_subclass(torch.Tensor) for f in files])
soft = F.interpolate(load(round(args.size/.4**.5))/255, (args.size, args.size), mode='bilinear', antialias=True)
true = load(256)
l,ab = [o.as_subclass(torch.Tensor) for o in split_lab(true)]

@torch.inference_mode()
def row(name, small=None):
    "PSNR, SSIM of ab and colourfulness at 256 pixels"
    pred = ab*0 if small is None else torch.cat([F.interpolate(net(split_lab(o)[0].as_subclass(torch.Tensor)), (256, 256), mode='bicubic') for o in small.split(16)])
    rgb = torch.cat([to_uint8(merge_lab(*o)) for o in zip(l.split(16), pred.split(16))])
    means = [torch.cat([m(*o) for o in zip(rgb.split(16), true.split(16))]).mean().item() for m in (psnr, ssim_ab)]
    print(f'{name:22} PSNR {means[0]:.3f}  SSIM ab {means[1]:.4f}  colourfulness {colourfulness(rgb).mean().item():.2f}')

print(f'{len(files)} photos of {args.folder}, seen at {args.size} px, measured at 256 px; {hardware()}')
row('grey')
row('bicubic, at once', load(args.size))
row('bilinear, in two steps', to_uint8(soft))
