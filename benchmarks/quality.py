"""Quality of weights on a folder of colour photographs, beside the grey baseline.

    python benchmarks/quality.py FOLDER --weights l1 --csv results.csv

Protocol: 256×256 by stretch, photos in sorted order, L of the ground truth, 8-bit sRGB after clamping, one value a photo, then averaged.
PSNR and SSIM on RGB (data range 255), and on the normalised ab planes of the same 8-bit pictures (data range 2)."""
import argparse
from pathlib import Path

import numpy as np, pandas as pd, torch
from fastcore.basics import chunked
from fastprogress.fastprogress import progress_bar

from fastai_colorize.color import split_lab
from fastai_colorize.data import LoadPhoto
from fastai_colorize.inference import Colorizer
from fastai_colorize.metrics import colourfulness, psnr, ssim
from fastai_colorize.photos import find_photos

def measure(pred, true):
    "Metrics of a batch of uint8 RGB pictures, as a dict of columns"
    pab,tab = [split_lab(o)[1].as_subclass(torch.Tensor) for o in (pred, true)]
    cols = dict(psnr=psnr(pred, true), ssim=ssim(pred, true), psnr_ab=psnr(pab, tab, 2.), ssim_ab=ssim(pab, tab, 2.), colourfulness=colourfulness(pred))
    return {k: v.tolist() for k,v in cols.items()}

def evaluate(colorizer, files, sizes, bs=16, size=256):
    "One row a photo and a way of colouring it"
    load,rows = LoadPhoto(size),[]
    ways = {'grey': dict(saturation=0), **{f'render {s}': dict(render_size=s) for s in sizes}}
    batches = list(chunked(files, bs))
    for fs in progress_bar(batches):
        true = torch.stack([load(f).as_subclass(torch.Tensor) for f in fs])
        photos = [o.permute(1,2,0).numpy() for o in true]
        for way,kw in {'original': None, **ways}.items():
            ims = photos if kw is None else [np.asarray(o) for o in colorizer.colorize_batch(photos, bs=bs, **kw)]
            pred = torch.from_numpy(np.stack(ims)).permute(0,3,1,2)
            rows.append(pd.DataFrame(dict(photo=[f.name for f in fs], way=way, **measure(pred, true))))
    return pd.concat(rows, ignore_index=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path); p.add_argument('--weights', default='l1'); p.add_argument('--n', type=int)
    p.add_argument('--render', type=int, nargs='+', help="sizes that the network sees (default: that of the weights)"); p.add_argument('--csv', type=Path)
    args = p.parse_args()
    colorizer,files = Colorizer.from_pretrained(args.weights),find_photos([args.folder])[:args.n]
    res = evaluate(colorizer, files, args.render or [colorizer.render_size])
    cols = [c for c in res.columns if c not in ('photo', 'way')]
    table = res.groupby('way', sort=False)[cols].agg(['mean', 'max', 'min']).round(3)
    print(f"\n{args.weights} on {len(files)} photos of {args.folder.name}, 256 px, {colorizer.device}, torch {torch.__version__}")
    print(table['psnr'].add_prefix('psnr ').to_string(), table.xs('mean', axis=1, level=1).to_string(), sep='\n\n')
    if args.csv: res.round(4).to_csv(args.csv, index=False)

if __name__ == '__main__': main()
