"""What a few given colours bring: PSNR with 0 to 50 hints, as Zhang et al. 2017 simulate a person.

    python benchmarks/hints.py FOLDER [--weights l1] [--n 1004] [--out hints.csv]

Each photo is stretched to 256×256. A hint is the mean colour of a random 7×7 square of the original, put there as a
disc of radius 3; a photo's hints are drawn once, and its first 1, 2, 5, … are given."""
from argparse import ArgumentParser
from pathlib import Path
from time import perf_counter

import numpy as np, pandas as pd
from PIL import Image

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

def table(rows):
    "A line for each number of points: means over the photos"
    mean = pd.DataFrame(rows).mean()
    t = [dict(points=n, n=len(rows), grey=mean.grey, psnr=mean[f'hints {n}'], gain=mean[f'hints {n}'] - mean['hints 0'],
              seconds=mean[f'seconds {n}']) for n in POINTS]
    return pd.DataFrame(t).round(3)

def main():
    p = ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folder', type=Path)
    p.add_argument('--weights', default='l1')
    p.add_argument('--n', type=int)
    p.add_argument('--out', type=Path)
    args = p.parse_args()
    colorizer,rows = Colorizer.from_pretrained(args.weights, device='cpu'),[]
    score = lambda a, b: psnr(a[None].float(), b[None].float()).item()
    for i,f in enumerate(find_photos(args.folder)[:args.n]):
        rgb = np.asarray(open_photo(f).to_pil().convert('RGB').resize((256,256), Image.Resampling.BICUBIC))
        hints,true = list(draw(rgb, i)),to_tensor(rgb)
        photo,small = colorizer.prepare(rgb, None)
        ab = colorizer.predict_ab([small])[0]
        row = dict(grey=score(to_tensor(colorizer.paint(photo, ab, 0)), true))
        for n in POINTS:
            start = perf_counter()
            row[f'hints {n}'] = score(to_tensor(colorizer.paint(open_hinted((photo, hints[:n])), ab, 1)), true)
            row[f'seconds {n}'] = perf_counter() - start
        rows.append(row)
        if len(rows)%50 == 0 and args.out: table(rows).to_csv(args.out, index=False)
    print(table(rows).to_string(index=False))
    if args.out: table(rows).to_csv(args.out, index=False)

if __name__ == '__main__': main()
