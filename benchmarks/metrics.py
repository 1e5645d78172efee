"""The metrics, batched in torch, against a loop over scikit-image; the same photos, interleaved, medians.

    python benchmarks/metrics.py FOLDER --n 60
    python benchmarks/metrics.py FOLDER --network      what they cost beside the network, on the GPU where there is one

scikit-image uses one thread, and so does torch here unless --threads says otherwise. Photos at 256 px, measured against
themselves with half their colour. "PSNR, SSIM" is both on RGB; "all" adds both on the ab planes, ΔE2000 and colourfulness."""
import argparse, statistics
from pathlib import Path
from time import perf_counter

import numpy as np, torch
from fastai.torch_core import default_device
from fastcore.basics import chunked
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fastai_colorize.base.color import merge_lab, split_lab, to_uint8
from fastai_colorize.data.loaders import LoadPhoto
from fastai_colorize.nets.dynamic import resnet_unet
from fastai_colorize.base.metrics import measure, psnr, ssim
from fastai_colorize.base.photos import find_photos

def sk_two(p, t, data_range=255):
    "PSNR and SSIM of one picture"
    return (peak_signal_noise_ratio(t, p, data_range=data_range),
            structural_similarity(t, p, channel_axis=-1, data_range=data_range, gaussian_weights=True, sigma=1.5,
                                  use_sample_covariance=False))

def sk_colourfulness(rgb):
    r,g,b = rgb.astype(float).transpose(2,0,1)
    rg,yb = r - g,(r + g)/2 - b
    return np.hypot(rg.std(), yb.std()) + .3*np.hypot(rg.mean(), yb.mean())

def sk_all(p, t):
    "The columns of `measure` of one picture"
    plab,tlab = rgb2lab(p),rgb2lab(t)
    cp,ct = sk_colourfulness(p),sk_colourfulness(t)
    ab = sk_two(plab[...,1:]/110, tlab[...,1:]/110, 2)
    return *sk_two(p, t),*ab,deltaE_ciede2000(plab, tlab).mean(),cp,abs(cp - ct)

def timed(f):
    "Result of `f`, and seconds"
    if torch.cuda.is_available(): torch.cuda.synchronize()
    start = perf_counter()
    res = f()
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return res,perf_counter() - start

def against_skimage(batches):
    "Both, batch by batch, in turn; the first batch warms up"
    kinds = {'PSNR, SSIM': (lambda p,t: torch.stack([psnr(p, t), ssim(p, t)]), sk_two),
             'all': (lambda p,t: torch.tensor(list(measure(p, t).values())), sk_all)}
    for name,(ours,sk) in kinds.items():
        times,worst = [],0.
        for p,t in batches:
            a,ta = timed(lambda: ours(p, t))
            arrays = [[o.permute(1,2,0).numpy() for o in pair] for pair in zip(p, t)]
            b,tb = timed(lambda: np.array([sk(*o) for o in arrays]))
            times.append((ta/len(p), tb/len(p)))
            worst = max(worst, np.abs(a.numpy().T - b).max())
        a,b = [statistics.median(o) for o in zip(*times[1:] or times)]
        print(f'{name:12s} torch {1e3*a:6.1f} ms a photo, skimage {1e3*b:6.1f}: {b/a:.2f} times as fast, '
              f'largest difference {worst:.1e}')

def beside_network(batches, device):
    "A forward pass of the U-Net and the metrics of its pictures, in turn"
    net,times = resnet_unet(pretrained=False).to(device).eval(),[]
    with torch.inference_mode():
        for p,t in batches:
            p,t = p.to(device),t.to(device)
            l = split_lab(t)[0]
            parts = [lambda: net(l), lambda: (psnr(p, t), ssim(p, t)), lambda: measure(p, t)]
            times.append([timed(f)[1]/len(p) for f in parts])
    a,b,c = [1e3*statistics.median(o) for o in zip(*times[1:] or times)]
    print(f'network (resnet18, 256 px) {a:.2f} ms a photo; PSNR and SSIM {b:.2f}, all columns {c:.2f}')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path)
    p.add_argument('--n', type=int, default=60)
    p.add_argument('--bs', type=int, default=10)
    p.add_argument('--network', action='store_true')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    load,batches = LoadPhoto(256),[]
    for fs in chunked(find_photos(args.folder)[:args.n], args.bs):
        t = torch.stack([load(f).as_subclass(torch.Tensor) for f in fs])
        l,ab = split_lab(t)
        batches.append((to_uint8(merge_lab(l, ab/2)), t))
    device = default_device() if args.network else torch.device('cpu')
    threads = torch.get_num_threads()
    print(f'{args.n} photos, batches of {args.bs}, {device}, {threads} threads, torch {torch.__version__}')
    if args.network: beside_network(batches, device)
    else: against_skimage(batches)

if __name__ == '__main__': main()
