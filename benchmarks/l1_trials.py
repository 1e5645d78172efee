"""What a minute of CPU buys: L1 trainings of one CPU time, one change at a time, measured as gain over grey.

    python benchmarks/l1_trials.py FOLDER [FOLDER ...] --valid FOLDER --weights 1 4 --cache cache [--seconds 300] [--rows light-2 …]

Each row trains for `--seconds` of CPU time on one thread, bf16, from ImageNet weights: AdamW, warm-up, then a cosine to
zero over that time, moving average; of several sizes each has the same share of the time.
Then the photographs kept for validation are coloured at 64, 96 and 128 px."""
import argparse, math, os, tempfile
from pathlib import Path
from time import process_time

import pandas as pd, torch
from fastai.callback.core import Callback, CancelFitException
from fastai.torch_core import set_seed

from fastai_colorize import learner
from fastai_colorize.nets.register import create_generator
from fastai_colorize.train.callbacks import EMA
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.use.evaluate import evaluate, hardware
from fastai_colorize.use.peers import by_colorizer

BASE = dict(net=dict(generator='light', head=2), sizes=(64,), bs=32, lr=1e-3, min_scale=.5, freeze=False)
LIGHT4 = dict(generator='light', head=4)
ROWS = {
    'light-2':        {},
    'light-4':        dict(net=LIGHT4),
    'light-8':        dict(net=dict(generator='light', head=8)),
    'light-4 wide':   dict(net=dict(LIGHT4, dims=(512, 384, 256))),
    'light-4 thin':   dict(net=dict(LIGHT4, dims=(128, 96, 64))),
    'DynamicUnet':    dict(net=dict(generator='resnet18'), lr=5e-4),
    '96 px':          dict(sizes=(96,)),
    '64, 96, 128 px': dict(sizes=(64, 96, 128)),
    'rate x2':        dict(lr=2e-3),
    'rate / 2':       dict(lr=5e-4),
    'batch 16':       dict(bs=16, lr=7e-4),
    'batch 64':       dict(bs=64, lr=1.5e-3),
    'frozen encoder': dict(freeze=True),
    'no crop':        dict(min_scale=1.)}

class Budget(Callback):
    "The learning rate by the CPU time that is used, and an end when a size has had its share of it"
    order,run_valid = 80,False
    def __init__(self, seconds, lr, share):
        self.seconds,self.lr,self.share = seconds,lr,share
        self.used,self.stages,self.pictures = 0.,0,0
    def before_fit(self): self.start,self.stages = process_time() - self.used,self.stages + 1
    def before_batch(self):
        self.used = process_time() - self.start
        t = self.used/self.seconds
        if t >= self.stages*self.share: raise CancelFitException()
        self.opt.set_hyper('lr', self.lr*(t/.15 if t < .15 else .5 + .5*math.cos(math.pi*(t - .15)/.85)) + 1e-7)
    def after_batch(self): self.pictures += len(self.x)

def run(name, args):
    "Train and measure one row"
    r = {**BASE, **ROWS[name]}
    set_seed(0)
    net,budget = create_generator(pretrained=True, **r['net']),Budget(args.seconds, r['lr'], 1/len(r['sizes']))
    for size in r['sizes']:
        dls = learner.ColorDataLoaders.from_folders(
            args.folders, args.weights, valid=args.valid, valid_pct=args.valid_pct,
            size=size, bs=r['bs'], min_scale=r['min_scale'], cache=args.cache)
        learn = learner.colorize_learner(dls, net, bf16=True, freeze=r['freeze'], metrics=[], cbs=[EMA(.998), budget])
        with learn.no_bar(), learn.no_logging(): learn.fit(1000, r['lr'])
    files = sorted(dls.valid_ds.items)
    colorizers = {f'{s} px': by_colorizer(Colorizer(net, s)) for s in (64, 96, 128)}
    res = evaluate(os.path.commonpath([f.parent for f in files]), colorizers, files=files)
    gains = {f'gain_{o.split()[0]}': round(res.gain(o).mean(), 3) for o in colorizers}
    return dict(row=name, pictures=budget.pictures, cpu_seconds=args.seconds, n=len(files), **gains, hardware=hardware())

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folders', nargs='+', type=Path)
    p.add_argument('--weights', nargs='+', type=float)
    p.add_argument('--valid', nargs='+', type=Path, help='those of the folders from which validation is drawn')
    p.add_argument('--valid-pct', type=float, default=.05)
    p.add_argument('--seconds', type=float, default=300)
    p.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS))
    p.add_argument('--cache', type=Path, default=Path(tempfile.gettempdir())/'l1_trials')
    args = p.parse_args()
    torch.set_num_threads(1)
    print(pd.DataFrame([run(o, args) for o in args.rows]).to_csv(index=False))

if __name__ == '__main__': main()
