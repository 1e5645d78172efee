"""Loading: batches of L and ab against the usual item of the tutorials, in one run, interleaved, medians.

    python benchmarks/loading.py FOLDER [--size 256] [--n 128] [--bs 16] [--rounds 5]

The tutorials' item: PIL open, bicubic resize, random flip, skimage `rgb2lab` in float64, ToTensor, normalise.
At the end, what the process holds in memory before and after the cache was read."""
import argparse, statistics, tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image
from skimage.color import rgb2lab
from torchvision import transforms

from fastai_colorize.base.color import merge_lab, split_lab
from fastai_colorize.base.photos import find_photos
from fastai_colorize.data.cache import LoadPhoto, PhotoCache
from fastai_colorize.data.loaders import ColorDataLoaders

TEXTS = dict(
    tutorial='tutorial item',
    item='our item (uint8, one process)',
    item_lab='our item with Lab on the CPU',
    cache='batches from the cache (uint8)',
    cache_lab='batches from the cache, flip and Lab on the CPU',
    cache_old='the same, and every second one degraded',
)

def tutorial_item(f, size, flip=False):
    "As in the colorization tutorials on the web"
    img = Image.open(f).convert('RGB')
    img = transforms.Resize((size, size), Image.BICUBIC)(img)
    if flip: img = transforms.RandomHorizontalFlip()(img)
    lab = transforms.ToTensor()(rgb2lab(np.array(img)).astype('float32'))
    return lab[[0]]/50. - 1., lab[[1, 2]]/110.

def difference(files, size):
    "Mean difference of a pixel to the tutorials' item, in grey levels"
    res = []
    for f in files:
        ours,theirs = [merge_lab(*o) for o in (split_lab(LoadPhoto(size)(f)), tutorial_item(f, size))]
        res.append((ours - theirs).abs().mean().item())
    return 255*statistics.mean(res)

def ways_to_load(files, args, folder):
    "Functions that load all files once"
    load,kw = LoadPhoto(args.size),dict(size=args.size, bs=args.bs, check=False, valid_pct=1/len(files), cache=folder)
    cached,old = [ColorDataLoaders.from_files(files, degrade=o, **kw).train for o in (False, .5)]
    for dl in (cached, old): dl.drop_last = False
    bare = cached.new(after_batch=None)   # what reaches the device: uint8; flip and Lab are the device's work
    return dict(tutorial=lambda: [tutorial_item(f, args.size, True) for f in files],
        item=lambda: [load(f) for f in files],
        item_lab=lambda: [split_lab(load(f)) for f in files],
        cache=lambda: [None for _ in bare],
        cache_lab=lambda: [None for _ in cached],
        cache_old=lambda: [None for _ in old])

def per_item(func, n):
    "Seconds an item"
    t = perf_counter()
    func()
    return (perf_counter() - t)/n

def memory():
    "MB that the process holds, where Linux tells it"
    try: return int(next(o for o in open('/proc/self/status') if o.startswith('VmRSS')).split()[1])/1024
    except OSError: return float('nan')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path)
    p.add_argument('--size', type=int, default=256)
    p.add_argument('--n', type=int, default=128)
    p.add_argument('--bs', type=int, default=16)
    p.add_argument('--rounds', type=int, default=5)
    args = p.parse_args()
    files = find_photos([args.folder])[:args.n]
    n = len(files)
    with tempfile.TemporaryDirectory() as tmp:
        t = perf_counter()
        cache = PhotoCache.build(files, args.size, tmp)
        print(f'building the cache: {1e3*(perf_counter() - t)/n:.2f} ms a photo')
        print(f'mean pixel difference to the tutorials, of 1/255: {difference(files[:64], args.size):.4f}')
        ways = ways_to_load(files, args, tmp)
        times = {k: [] for k in ways}
        for _ in range(args.rounds):
            for k,f in ways.items(): times[k].append(per_item(f, n - 1 if 'cache' in k else n))   # one is validation
        med = {k: statistics.median(v) for k,v in times.items()}
        for k,t in TEXTS.items():
            print(f'{t:50s} {1e3*med[k]:8.3f} ms an image   {med["tutorial"]/med[k]:6.1f} x')
        before = memory()
        for i in range(0, n, args.bs): cache[files[i:i + args.bs]]
        print(f'memory before and after reading the cache: {before:.1f} and {memory():.1f} MB')

if __name__ == '__main__': main()
