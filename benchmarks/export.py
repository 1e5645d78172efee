"""Exported networks beside the network of torch: how equal, how good, how fast.

    python benchmarks/export.py coco256/test --n 200

Photos are stretched to 256×256; the network sees them at its render size, with the L of the ground truth; PSNR is on
8-bit sRGB. `--n` photos are coloured in each way, one after the other, so that times are interleaved: medians of
one photo through the network, on all cores. Differences in ab are over every photo of the
folder. The cold start is a new Python that opens the file and colours one photo; median of 5."""
import os, platform, subprocess, sys, tempfile, time, warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np, pandas as pd, torch
from PIL import Image

from fastai_colorize import Colorizer
from fastai_colorize.base.files import versions
from fastai_colorize.base.photos import find_photos
from fastai_colorize.use.export import export_network

COLD = """import sys
from fastai_colorize import Colorizer
Colorizer.from_pretrained(sys.argv[1]).colorize(sys.argv[2])"""

def square(file): return np.array(Image.open(file).convert('RGB').resize((256, 256), Image.Resampling.BICUBIC))

def psnr(a, b): return 10*np.log10(255**2/np.square(np.asarray(a).astype(float) - b).mean())

def cold_start(weights, photo):
    "Seconds from the start of Python to a coloured photo"
    took = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, '-W', 'ignore', '-c', COLD, weights, photo], check=True)
        took.append(time.perf_counter() - start)
    return np.median(took)

def main(folder, n, weights):
    torch.set_num_threads(os.cpu_count() or 1)   # whatever OMP_NUM_THREADS says: the others do not look at it
    files,rows = find_photos([folder]),{}
    with tempfile.TemporaryDirectory() as tmp:
        torchs = Colorizer.from_pretrained(weights, device='cpu')
        ways,sources = {'torch': torchs},{'torch': weights}
        for to,end in (('onnx', '.onnx'), ('openvino', '.xml')):
            for int8 in (False, True):
                name,f = f"{to}{' int8'*int8}",Path(tmp, f'{to}{int8:d}{end}')
                export_network(torchs.model, f, to, int8)
                ways[name],sources[name] = Colorizer.from_pretrained(f),f
        off,score,took = ({k: [] for k in ways} for _ in range(3))
        for i,file in enumerate(files):
            true = square(file)
            small = torchs.prepare(true, None)[1]
            want = torchs.predict_ab([small]).numpy()
            for k,o in ways.items():
                start = time.perf_counter()
                ab = np.asarray(o.predict_ab([small]))
                took[k].append(time.perf_counter() - start)
                off[k].append(np.abs(ab - want).max())
                if i < n: score[k].append(psnr(o.colorize(true), true))
        for k,f in sources.items():
            size = sum(o.stat().st_size for o in Path(f).parent.glob(f'{Path(f).stem}.*')) if k != 'torch' else 0
            ms,least = 1000*np.median(took[k][:n]),np.median(np.array(took['torch'][:n])/took[k][:n])
            rows[k] = {'MB': size/1e6, 'largest difference in ab': max(off[k]), 'PSNR': np.mean(score[k]),
                       'ms a photo': ms, 'times as fast as torch': least, 'cold start, s': cold_start(f, files[0])}
    about = versions('torch', 'onnxruntime', 'openvino')
    cpu = next((o.partition(': ')[2] for o in Path('/proc/cpuinfo').read_text().splitlines() if o.startswith('model name')), '')
    print(f'{weights}: n = {n} (differences: {len(files)}), {cpu or platform.processor()}, {os.cpu_count()} cores, {about}\n')
    print(pd.DataFrame(rows).T.to_markdown(floatfmt=('', '.0f', '.1e', '.2f', '.1f', '.2f', '.2f')))

if __name__ == '__main__':
    p = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path, help='colour photos')
    p.add_argument('--n', type=int, default=200, help='photos for PSNR and times')
    p.add_argument('--weights', default='l1')
    warnings.simplefilter('ignore')
    main(**vars(p.parse_args()))
