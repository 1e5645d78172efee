"""What a few given colours bring: PSNR with 0 to 50 hints, as Zhang et al. 2017 simulate a person.

    python benchmarks/hints.py FOLDER [--weights l1] [--n 1004] [--levin] [--out hints.csv]

Each photo is stretched to 256×256. A hint is the mean colour of a random 7×7 square of the original, put there as a disc
of radius 3; a photo's hints are drawn once, and its first 1, 2, 5, … are given. `--levin` adds Levin et al. 2004 with the
same points: a sparse system on the difference to the network's colour, with a small weight that draws it to 0."""
from argparse import ArgumentParser
from pathlib import Path
from time import perf_counter

import numpy as np, pandas as pd, scipy.sparse as sp, torch
from PIL import Image
from scipy.sparse.linalg import splu

from fastai_colorize.base.color import merge_lab, split_lab, to_uint8
from fastai_colorize.base.folders import find_photos
from fastai_colorize.base.measures import psnr
from fastai_colorize.base.photos import open_photo
from fastai_colorize.base.pictures import to_tensor
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.use.hints import open_hinted

POINTS = 0, 1, 2, 5, 10, 20, 50

def draw(rgb, seed, n=50):
    "`n` hints for a photo"
    rng,(h,w) = np.random.default_rng(seed),rgb.shape[:2]
    for _ in range(n):
        x,y = rng.integers(3, w - 3),rng.integers(3, h - 3)
        colour = rgb[y-3:y+4,x-3:x+4].reshape(-1, 3).mean(0).round().astype(int)
        yield int(x), int(y), tuple(map(int, colour)), 3

def weights_of(l):
    "Levin's matrix: each pixel minus the weighted mean of its eight neighbours"
    (h,w),index = l.shape,np.arange(l.size).reshape(l.shape)
    p = np.pad(l, 1, mode='edge')
    spread = np.maximum(np.stack([p[i:i+h,j:j+w] for i in range(3) for j in range(3)]).var(0), 1e-4).ravel()
    part = lambda d, n: slice(max(0, -d), n - max(0, d))
    rows,cols = [],[]
    for dy,dx in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j):
        rows.append(index[part(dy, h),part(dx, w)].ravel())
        cols.append(index[part(-dy, h),part(-dx, w)].ravel())
    a,b = np.concatenate(rows),np.concatenate(cols)
    m = sp.csr_matrix((np.exp(-(l.ravel()[a] - l.ravel()[b])**2/(1.2*spread[a])), (a, b)), (l.size, l.size))
    return sp.eye(l.size) - sp.diags(1/np.asarray(m.sum(1)).ravel())@m

def levin(rgb, base, hints, fade):
    "The photo with hints, by a sparse system; `fade` draws the change to 0"
    l,ab = split_lab(to_tensor(base))
    m,index = weights_of((l[0].numpy().astype(float) + 1)/2),np.arange(l[0].numel()).reshape(l[0].shape)
    given,want = np.zeros(l[0].numel()),np.zeros((l[0].numel(), 2))
    for x,y,colour,r in hints:
        at = index[y-r:y+r+1,x-r:x+r+1].ravel()
        target = split_lab(torch.tensor(colour, dtype=torch.uint8)[:,None,None])[1].flatten()
        given[at],want[at] = 1,(target[:,None] - ab.flatten(1)[:,at]).T.numpy()
    system = (m.T@m + fade*sp.eye(len(given)) + sp.diags(given)).tocsc()
    change = splu(system, permc_spec='MMD_AT_PLUS_A', options=dict(SymmetricMode=True)).solve(want)
    ab = ab + torch.from_numpy(change.T.reshape(ab.shape)).float()
    return to_uint8(merge_lab(split_lab(to_tensor(rgb))[0], ab))

def table(rows):
    "A line for each number of points: means over the photos"
    mean = pd.DataFrame(rows).mean()
    t = [dict(points=n, n=len(rows), grey=mean.grey, psnr=mean[f'hints {n}'], gain=mean[f'hints {n}'] - mean['hints 0'],
              levin=mean.get(f'levin {n}'), seconds=mean[f'seconds {n}']) for n in POINTS]
    return pd.DataFrame(t).dropna(axis=1, how='all').round(3)

def main():
    p = ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folder', type=Path)
    p.add_argument('--weights', default='l1')
    p.add_argument('--n', type=int)
    p.add_argument('--levin', nargs='?', type=float, const=1e-4)
    p.add_argument('--out', type=Path)
    args = p.parse_args()
    colorizer,rows = Colorizer.from_pretrained(args.weights, device='cpu'),[]
    score = lambda a, b: psnr(a[None].float(), b[None].float()).item()
    for i,f in enumerate(find_photos(args.folder)[:args.n]):
        rgb = np.asarray(open_photo(f).to_pil().convert('RGB').resize((256,256), Image.Resampling.BICUBIC))
        hints,true = list(draw(rgb, i)),to_tensor(rgb)
        photo,small = colorizer.prepare(rgb, None)
        ab = colorizer.predict_ab([small])[0]
        base = colorizer.paint(photo, ab, 1)
        row = dict(grey=score(to_tensor(colorizer.paint(photo, ab, 0)), true))
        for n in POINTS:
            start = perf_counter()
            row[f'hints {n}'] = score(to_tensor(colorizer.paint(open_hinted((photo, hints[:n])), ab, 1)), true)
            row[f'seconds {n}'] = perf_counter() - start
            if args.levin and n: row[f'levin {n}'] = score(levin(rgb, base, hints[:n], args.levin), true)
        rows.append(row)
        if len(rows)%50 == 0 and args.out: table(rows).to_csv(args.out, index=False)
    print(table(rows).to_string(index=False))
    if args.out: table(rows).to_csv(args.out, index=False)

if __name__ == '__main__': main()
