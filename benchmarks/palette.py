"""Which colours are true where the network gives an answer: makes `weights/palette.csv`, and measures what it helps.

    python benchmarks/palette.py TRAIN TEST [--weights l1] [--train 1500] [--test 300] [--out FILE.csv]

200 random places of each photo (256×256); true is the mean of 7×7 pixels. A palette's error is the distance in a and b
from the truth to the nearest of its colours, the network's own answer among them; only places count where the network
is wrong by more than 10. Its rivals have as many colours: eight hues around the circle at the chroma of the data, and
the eight colours that are most frequent everywhere."""
import csv
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter
from skimage.color import rgb2lab
from sklearn.cluster import KMeans

from fastai_colorize.base.folders import find_photos
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.use.palette import HUES, LIGHTS, kind_of

def collect(folder, n, weights):
    "`(places,5)`: L, the network's a and b, the true a and b"
    files,rows = find_photos([folder]),[]
    files = files[::max(1, len(files)//n)][:n]
    for i,(f,im) in enumerate(zip(files, Colorizer.from_pretrained(weights, device='cpu').colorize_batch(files))):
        true,mine = rgb2lab(np.asarray(Image.open(f).convert('RGB'))),rgb2lab(np.asarray(im))
        smooth = np.dstack([uniform_filter(true[...,k], 7) for k in (1, 2)])
        y,x = np.random.default_rng(i).integers(4, min(true.shape[:2]) - 4, (2,200))
        rows.append(np.column_stack([mine[y,x], smooth[y,x]]))
    return np.concatenate(rows)

def colours(places, n=8):
    "`n` colours (a, b), the frequent first, and their shares"
    wrong = np.hypot(*(places[:,1:3] - places[:,3:]).T)
    km = KMeans(n, n_init=4, random_state=0).fit(places[:,3:], sample_weight=wrong)
    share = np.bincount(km.labels_, minlength=n)/len(places)
    order = np.argsort(-share)
    return km.cluster_centers_[order],share[order]

def make(places):
    "The palette of each kind of place; a rare kind has that of its lightness"
    kinds,n = kind_of(*places.T[:3]),HUES + 1
    res = {}
    for k in range((len(LIGHTS) + 1)*n):
        mine = places[kinds == k]
        res[k] = colours(mine if len(mine) >= 500 else places[kinds//n == k//n])
    return res

def errors(places, palette):
    "Distance of the truth to the nearest colour, for places where the network is wrong by more than 10"
    own = np.hypot(*(places[:,1:3] - places[:,3:]).T)
    at = np.flatnonzero(own > 10)
    near = [min(own[i], np.hypot(*(palette(places[i]) - places[i,3:]).T).min()) for i in at]
    return own[at],np.array(near)

def main():
    p = ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folders', nargs=2, type=Path)
    p.add_argument('--weights', default='l1')
    p.add_argument('--train', type=int, default=1500)
    p.add_argument('--test', type=int, default=300)
    p.add_argument('--out', type=Path)
    args = p.parse_args()
    train,test = (collect(f, n, args.weights) for f,n in zip(args.folders, (args.train, args.test)))
    table,(same,_) = make(train),colours(train)
    chroma,angle = np.median(np.hypot(*train[:,3:].T)),np.arange(8)*np.pi/4
    circle = np.column_stack([np.cos(angle), np.sin(angle)])*chroma*2
    ways = dict(table=lambda o: table[int(kind_of(*o[:3]))][0], everywhere=lambda o: same, circle=lambda o: circle)
    for name,f in ways.items():
        own,near = errors(test, f)
        print(f'{name:10}: {own.mean():.1f} → {near.mean():.1f}, within 10 of the truth {(near < 10).mean():.0%}, '
              f'{len(near):,} places of {args.test} photos')
    if not args.out: return
    with open(args.out, 'w', encoding='utf-8', newline='') as f:
        w = csv.writer(f, lineterminator='\n')
        w.writerow(['kind', 'a', 'b', 'share'])
        for k,(ab,share) in table.items(): w.writerows([k, *np.round(c, 1), round(s, 3)] for c,s in zip(ab, share))

if __name__ == '__main__': main()
