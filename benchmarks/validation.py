"""Measure weights on the photographs that their training kept for validation.

    python benchmarks/validation.py FOLDER [--weights NAME_OR_FILE ...] [--size 64 96 128] [--saturation 1] [--valid-pct 0.05] [--seed 42]

FOLDER, `--valid-pct` and `--seed` are those of `fastai_colorize train`. Render size and saturation can be chosen here: the test photographs stay unseen."""
from argparse import ArgumentParser

from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.use.evaluate import colorizer_way, evaluate
from fastai_colorize.use.colorizer import Colorizer

parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument('folder')
parser.add_argument('--weights', nargs='+', default=['l1'])
parser.add_argument('--size', nargs='+', type=int, default=[64, 96, 128])
parser.add_argument('--saturation', nargs='+', type=float, default=[1.])
parser.add_argument('--valid-pct', type=float, default=.05)
parser.add_argument('--seed', type=int, default=42)
args = parser.parse_args()

colorizers = {w: Colorizer.from_pretrained(w) for w in args.weights}
ways = {f'{w}, {r} px, saturation {s:g}': colorizer_way(c, render_size=r, saturation=s) for w,c in colorizers.items() for r in args.size for s in args.saturation}
kept = ColorDataLoaders.from_folder(args.folder, valid_pct=args.valid_pct, seed=args.seed).valid_ds.items
print(evaluate(args.folder, ways, files=sorted(kept)).markdown(f'Validation photographs of {args.folder}'))
