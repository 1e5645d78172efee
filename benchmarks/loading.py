"""Loading: batches of L and ab against the usual item of the tutorials, in one run, interleaved, medians.

    python benchmarks/loading.py FOLDER --size 256

The tutorials' item: PIL open, bicubic resize, random flip, skimage `rgb2lab` in float64, ToTensor, normalise."""
import argparse, statistics, tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image
from skimage.color import rgb2lab
from torchvision import transforms

from fastai_colorize.base.color import merge_lab, split_lab
from fastai_colorize.data.loaders import ColorDataLoaders, LoadPhoto, PhotoCache
from fastai_colorize.base.photos import find_photos

def tutorial_item(f, size, flip=False):
    "As in the colorization tutorials on the web"
    img = Image.open(f).convert('RGB')
    img = transforms.Resize((size, size), Image.BICUBIC)(img)
    if flip: img = transforms.RandomHorizontalFlip()(img)
    lab = transforms.ToTensor()(rgb2lab(np.array(img)).astype('float32'))
    return lab[[0]]/50. - 1., lab[[1, 2]]/110.

def per_item(func, n):
    "Seconds an item"
    t = perf_counter()
    func()
    return (perf_counter() - t)/n

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path); p.add_argument('--size', type=int, default=256); p.add_argument('--n', type=int, default=128)
    p.add_argument('--bs', type=int, default=16); p.add_argument('--rounds', type=int, default=5)
    args = p.parse_args()
    files = find_photos([args.folder])[:args.n]
    n = len(files)
    with tempfile.TemporaryDirectory() as tmp:
        load,cache = LoadPhoto(args.size),PhotoCache.build(files, args.size, tmp)
        diffs = []
        for f in files[:64]:
            l,ab = split_lab(load(f))
            tl,tab = tutorial_item(f, args.size)
            diffs.append((merge_lab(l, ab) - merge_lab(tl, tab)).abs().mean().item())
        print(f'mean pixel difference to the tutorials, of 1/255: {255*statistics.mean(diffs):.4f}')

        kw = dict(size=args.size, bs=args.bs, check=False, valid_pct=1/n)
        cached = ColorDataLoaders.from_files(files, cache=tmp, **kw).train.new(drop_last=False)
        bare = cached.new(after_batch=None)   # what reaches the device: uint8; flip and Lab are the device's work
        ways = dict(tutorial=lambda: [tutorial_item(f, args.size, True) for f in files],
                    item=lambda: [load(f) for f in files],
                    item_lab=lambda: [split_lab(load(f)) for f in files],
                    cache=lambda: [None for _ in bare],
                    cache_lab=lambda: [None for _ in cached])
        times = {k: [] for k in ways}
        for _ in range(args.rounds):
            for k,f in ways.items(): times[k].append(per_item(f, n - 1 if 'cache' in k else n))   # one photo is kept for validation
        med = {k: statistics.median(v) for k,v in times.items()}
        texts = dict(tutorial='tutorial item', item='our item (uint8, one process)', item_lab='our item with Lab on the CPU',
                     cache='batches from the cache (uint8)', cache_lab='batches from the cache, flip and Lab on the CPU')
        for k,t in texts.items(): print(f'{t:50s} {1e3*med[k]:8.3f} ms an image   {med["tutorial"]/med[k]:6.1f} x')

if __name__ == '__main__': main()
