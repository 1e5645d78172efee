"""The two heads of the ResNet U-Net: quality for the same training, and speed.

    python benchmarks/heads.py FOLDER --size 64 --epochs 3

Same photos, order, schedule and seed; only `last_cross` differs. Best validation epoch of each."""
import argparse, tempfile
from pathlib import Path

import pandas as pd
from fastai.torch_core import set_seed

from fastai_colorize import learner
from fastai_colorize.nets.dynamic import resnet_unet

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path); p.add_argument('--size', type=int, default=64); p.add_argument('--epochs', type=int, default=3)
    p.add_argument('--bs', type=int, default=16); p.add_argument('--lr', type=float, default=1e-3); p.add_argument('--seed', type=int, default=0)
    p.add_argument('--cache', type=Path, default=Path(tempfile.gettempdir())/'heads')
    args = p.parse_args()
    rows = {}
    for last_cross in (False, True):
        set_seed(args.seed)
        dls = learner.ColorDataLoaders.from_folder(args.folder, size=args.size, bs=args.bs, valid_pct=0.1, cache=args.cache, check=False)
        learn = learner.colorize_learner(dls, resnet_unet(last_cross=last_cross), bf16=True)
        learn.fit_one_cycle(args.epochs, args.lr)
        names = list(learn.recorder.metric_names)[1:-1]
        rows[f'last_cross={last_cross}'] = dict(zip(names, learn.recorder.values[-1]))
    print(f'{args.folder.name}: {len(dls.train_ds)} training and {len(dls.valid_ds)} validation photos, {args.size} px, {args.epochs} epochs, {dls.device}')
    print(pd.DataFrame(rows).T.round(4).to_string())

if __name__ == '__main__': main()
