"""Ten thousand small photos in one run: memory stays flat, and each result is what a single call gives.

    python benchmarks/soak.py --n 10000 --seed 0

Photos of 48×32 to 80×56 pixels (JPEG, PNG, TIFF, WebP; grey, RGB and with alpha; one of a hundred is broken) are
coloured by one call of `Colorizer.colorize_files`, with a tiny network. The resident memory is read each tenth of a
second. Flat means: the straight line through the last 80 % of the readings rises by less than `--most` MB from its
first to its last photo (what is kept of each photo, its row in the report, is in it). Then `--sample` photos are
coloured alone, by a new colorizer, and saved: the pictures have to be the same, pixel by pixel, or differ by one step
of 255 (photos of one shape go through the network together, and sums of floats depend on how many there are)."""
import os, random, sys, tempfile, threading, time, warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np, torch
from PIL import Image
from skimage import data
from torch import nn

from fastai_colorize.base.photos import open_photo, save_photo
from fastai_colorize.use import folders   # gives `Colorizer` the method
from fastai_colorize.use.colorizer import Colorizer

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
    def forward(self, l): return self.conv(l).tanh()/2

def make(folder, n, seed):
    "`n` photos in subfolders of a thousand"
    r,sources = random.Random(seed),[Image.fromarray(getattr(data, o)()) for o in ('astronaut', 'chelsea', 'coffee')]
    for i in range(n):
        im,w,h = r.choice(sources),r.randrange(48, 81),r.randrange(32, 57)
        x,y = r.randrange(im.width - w),r.randrange(im.height - h)
        suffix,mode = r.choice(('jpg', 'png', 'tif', 'webp')),r.choice(('L', 'RGB', 'RGBA'))
        f = folder/f'{i//1000}'/f'{i:05d}.{suffix}'
        f.parent.mkdir(exist_ok=True)
        im.crop((x, y, x + w, y + h)).convert('RGB' if suffix == 'jpg' and mode == 'RGBA' else mode).save(f)
        if i % 100 == 7: f.write_bytes(f.read_bytes()[:60])

def resident(pid='self'):
    "Megabytes of a process"
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6

class Watch:
    "Reads the memory of this process while it works, and how many results there are"
    def __init__(self, count): self.count,self.rows,self.over = count,[],threading.Event()
    def __enter__(self):
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self
    def __exit__(self, *args):
        self.over.set()
        self.thread.join()
    def watch(self):
        while not self.over.wait(.1): self.rows.append((self.count(), resident()))

def slope(rows, skip=.2):
    "Megabytes by which the line through the readings rises over the last 80 % of the work; their mean; the most"
    n,mb = np.array([o for o in rows if o[0] >= skip*max(k for k,_ in rows)], float).T
    return float(np.polyfit(n, mb, 1)[0]*(n[-1] - n[0])),float(mb.mean()),float(mb.max())

def main():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('--n', type=int, default=10_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--sample', type=int, default=200)
    parser.add_argument('--most', type=float, default=25, help='MB')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix='soak_') as tmp:
        src,out,done = Path(tmp)/'src',Path(tmp)/'out',[0]
        src.mkdir()
        make(src, args.n, args.seed)
        col = Colorizer(Tiny(), 32)
        real = folders.save_photo
        def counted(*args, **kwargs):
            done[0] += 1
            return real(*args, **kwargs)
        folders.save_photo = counted
        begin = time.monotonic()
        with Watch(lambda: done[0]) as watch: report = col.colorize_files(src, out)
        seconds = time.monotonic() - begin
        rise,mean,most = slope(watch.rows)
        good = report[report.reason == '']
        wrong,broken = [],len(report) - len(good)
        if len(report) != args.n or broken != len(range(7, args.n, 100)):
            wrong.append(f'{len(good)} of {len(report)} coloured')
        alone,steps = Colorizer(Tiny(), 32),[]
        sample = random.Random(args.seed).sample(list(zip(good.file, good.result)), min(args.sample, len(good)))
        for f,res in sample:
            single = open_photo(save_photo(alone.colorize(f), Path(tmp)/Path(res).name))
            p = open_photo(res)
            step = np.abs(single.rgb.astype(int) - p.rgb).max()
            steps.append(step if p.alpha is None or np.array_equal(single.alpha, p.alpha) else 255)
        if max(steps) > 1: wrong.append(f'a result differs from that of a single call by {max(steps)} of 255')
    flat = rise < args.most
    print(f'{args.n:,} photos, seed {args.seed}, {seconds:.0f} s: {len(good):,} coloured, {broken} broken ones named; '
          f'memory of the last 80 %: mean {mean:.0f} MB, most {most:.0f} MB, the line rises by {rise:.1f} MB '
          f'({"flat" if flat else "NOT flat"}; {len(watch.rows)} readings); of {len(steps)} compared with a single '
          f'call {steps.count(0)} are equal, {steps.count(1)} differ by 1 of 255')
    print(*wrong, sep='\n')
    return int(bool(wrong) or not flat)

if __name__ == '__main__': sys.exit(main())
