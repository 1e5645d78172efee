"""Does it matter by which filter a photo is made small for the network?

    python benchmarks/filters.py FOLDER [--weights FILE] [--size 96] [--n 240]

Each photo is seen twice: shrunk at once by Pillow's bicubic filter, as `Colorizer` does, and in two steps of which the
second is bilinear, as random crops once were in training. The weights of that time:
`git show 403053f:fastai_colorize/weights/l1.safetensors > first.safetensors`."""
from argparse import ArgumentParser

import torch, torch.nn.functional as F

from fastai_colorize.base.color import merge_lab, split_lab, to_uint8
from fastai_colorize.data.cache import LoadPhoto
from fastai_colorize.nets.weights import load_generator, packaged_weights
from fastai_colorize.use.evaluate import evaluate

def load(files, side): return torch.stack([LoadPhoto(side)(f).as_subclass(torch.Tensor) for f in files])

def at_once(files, size): return load(files, size)

def two_steps(files, size):
    large = load(files, round(size/.4**.5))/255
    return to_uint8(F.interpolate(large, (size, size), mode='bilinear', antialias=True))

def by_small(net, shrink, size):
    "Colour from the small pictures that `shrink` makes"
    @torch.inference_mode()
    def paint(files, true):
        ab = F.interpolate(net(split_lab(shrink(files, size))[0]), true.shape[-2:], mode='bicubic')
        return list(to_uint8(merge_lab(split_lab(true)[0], ab)))
    return paint

def main():
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder')
    parser.add_argument('--weights', default=packaged_weights())
    parser.add_argument('--size', type=int, default=96)
    parser.add_argument('--n', type=int, default=240)
    args = parser.parse_args()
    net = load_generator(args.weights)
    shrinks = {'bicubic, at once': at_once, 'bilinear, in two steps': two_steps}
    colorizers = {name: by_small(net, o, args.size) for name,o in shrinks.items()}
    print(evaluate(args.folder, colorizers, n=args.n).markdown(f'{args.weights}, photos seen at {args.size} px'))

if __name__ == '__main__': main()
