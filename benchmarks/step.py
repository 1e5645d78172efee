"""One L1 training step on this machine: bf16 and channels_last against float32 NCHW, and the two heads, interleaved, medians.

    python benchmarks/step.py --size 128 --bs 16"""
import argparse, statistics
from time import perf_counter

import torch, torch.nn.functional as F
from fastai.torch_core import default_device

from fastai_colorize.nets.dynamic import resnet_unet
from fastai_colorize.learner import fused_adamw

def stepper(size, bs, device, bf16=False, last_cross=False):
    "A function that takes one training step"
    torch.manual_seed(0)
    fmt = torch.channels_last if bf16 else torch.contiguous_format
    net = resnet_unet(pretrained=False, last_cross=last_cross).to(device, memory_format=fmt)
    l,ab = [torch.rand(bs, c, size, size, device=device).mul(2).sub(1).contiguous(memory_format=fmt) for c in (1, 2)]
    opt = fused_adamw(list(net.parameters()), lr=1e-4)
    def step():
        with torch.autocast(l.device.type, torch.bfloat16, enabled=bf16): pred = net(l)
        F.l1_loss(pred.float(), ab).backward()
        opt.step(); opt.zero_grad()
        if l.device.type == 'cuda': torch.cuda.synchronize()
    return step

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--size', type=int, default=128); p.add_argument('--bs', type=int, default=16); p.add_argument('--rounds', type=int, default=7)
    args = p.parse_args()
    device = default_device()
    kinds = {'float32 NCHW':{}, 'bf16 channels_last':dict(bf16=True), 'bf16 channels_last, last_cross=True':dict(bf16=True, last_cross=True)}
    steps = {k: stepper(args.size, args.bs, device, **v) for k,v in kinds.items()}
    times = {k: [] for k in steps}
    for i in range(args.rounds + 1):
        for k,step in steps.items():
            t = perf_counter(); step()
            if i: times[k].append(perf_counter() - t)   # the first round warms up
    med = {k: statistics.median(v) for k,v in times.items()}
    print(f'{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.size} px, batch {args.bs}')
    for k,v in med.items(): print(f'{k:40s} {1e3*v:8.1f} ms a step   {med["float32 NCHW"]/v:5.2f} x')

if __name__ == '__main__': main()
