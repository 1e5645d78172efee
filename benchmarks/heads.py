"""Where the decoder of a colorizer may stop: quality for the same training, and speed.

    python benchmarks/heads.py FOLDER --size 64 --epochs 3

Same photos, order, schedule and seed for each network: the light U-Net at 1/8, 1/4 and 1/2 of the size,
and fastai's DynamicUnet without and with its block at full size (`last_cross`). The last epoch of each."""
import argparse, tempfile
from pathlib import Path
from time import perf_counter

import pandas as pd
from fastai.torch_core import set_seed

from fastai_colorize import learner
from fastai_colorize.nets.register import create_generator

NETS = {f'light, head={head}': dict(generator='light', head=head) for head in (8, 4, 2)}
NETS |= {f'resnet18, last_cross={o}': dict(generator='resnet18', last_cross=o) for o in (False, True)}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path)
    p.add_argument('--size', type=int, default=64)
    p.add_argument('--epochs', type=int, default=3)
    p.add_argument('--bs', type=int, default=16)
    p.add_argument('--lr', type=float, default=1e-3)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--random', action='store_true', help='start the encoders from random weights')
    p.add_argument('--cache', type=Path, default=Path(tempfile.gettempdir())/'heads')
    args = p.parse_args()
    rows = {}
    for name,config in NETS.items():
        set_seed(args.seed)
        dls = learner.ColorDataLoaders.from_folder(
            args.folder, size=args.size, bs=args.bs, valid_pct=0.1, cache=args.cache, check=False)
        learn = learner.colorize_learner(dls, create_generator(pretrained=not args.random, **config))
        start = perf_counter()
        learn.fit_one_cycle(args.epochs, args.lr)
        names = list(learn.recorder.metric_names)[1:-1]
        rows[name] = dict(zip(names, learn.recorder.values[-1]), seconds=perf_counter() - start)
    n,m = len(dls.train_ds),len(dls.valid_ds)
    print(f'{args.folder.name}: {n} training and {m} validation photos, '
          f'{args.size} px, {args.epochs} epochs, {dls.device}')
    print(pd.DataFrame(rows).T.round(4).to_string())

if __name__ == '__main__': main()
