"""Measure weights on the photographs that their training kept for validation.

    python benchmarks/validation.py FOLDER [FOLDER ...] [--valid FOLDER] [--weights NAME_OR_FILE ...] [--size 64 96 128]
        [--saturation 1] [--valid-pct 0.05] [--seed 42]

The folders, `--valid-pct` and `--seed` are those of `fastai_colorize train`; `--valid` names the folder from which the
photographs for validation were drawn, if it was one of several. Render size and saturation can be chosen here: the test
photographs stay unseen."""
import os
from argparse import ArgumentParser

from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.use.evaluate import evaluate
from fastai_colorize.use.peers import by_colorizer

def kept(args):
    "The photographs that a training with these settings keeps for validation"
    dls = ColorDataLoaders.from_folders(args.folders, valid=args.valid, valid_pct=args.valid_pct, seed=args.seed)
    return sorted(dls.valid_ds.items)

def main():
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folders', nargs='+')
    parser.add_argument('--valid', nargs='+')
    parser.add_argument('--weights', nargs='+', default=['l1'])
    parser.add_argument('--size', nargs='+', type=int, default=[64, 96, 128])
    parser.add_argument('--saturation', nargs='+', type=float, default=[1.])
    parser.add_argument('--valid-pct', type=float, default=.05)
    parser.add_argument('--seed', type=int, default=42)
    args = parser.parse_args()
    colorizers = {}
    for w in args.weights:
        c = Colorizer.from_pretrained(w)
        for r in args.size:
            for s in args.saturation:
                colorizers[f'{w}, {r} px, saturation {s:g}'] = by_colorizer(c, render_size=r, saturation=s)
    files = kept(args)
    folder = os.path.commonpath([f.parent for f in files])
    print(evaluate(folder, colorizers, files=files).markdown(f'Validation photographs of {", ".join(args.folders)}'))

if __name__ == '__main__': main()
