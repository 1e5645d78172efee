"""One L1 training step on this machine, interleaved, medians: bf16 and channels_last against float32, and the networks.

    python benchmarks/step.py --size 128 --bs 16"""
import argparse, statistics
from time import perf_counter

import torch, torch.nn.functional as F
from fastai.torch_core import default_device

from fastai_colorize.learner import fused_adamw
from fastai_colorize.nets.register import create_generator

KINDS = {
    'resnet18, float32 NCHW': dict(),
    'resnet18, float32 channels_last': dict(channels_last=True),
    'resnet18, bf16 channels_last': dict(channels_last=True, bf16=True),
    'resnet18, last_cross=True, bf16 channels_last': dict(channels_last=True, bf16=True, last_cross=True),
    'light, float32 channels_last': dict(generator='light', channels_last=True),
    'light, bf16 channels_last': dict(generator='light', channels_last=True, bf16=True),
    'light, head=2, float32 channels_last': dict(generator='light', channels_last=True, head=2),
}

def stepper(size, bs, device, bf16=False, channels_last=False, **config):
    "A function that takes one training step"
    torch.manual_seed(0)
    fmt = torch.channels_last if channels_last else torch.contiguous_format
    net = create_generator(**config).to(device, memory_format=fmt)
    l,ab = [torch.rand(bs, c, size, size, device=device).mul(2).sub(1).contiguous(memory_format=fmt) for c in (1, 2)]
    opt = fused_adamw(list(net.parameters()), lr=1e-4)
    def step():
        with torch.autocast(l.device.type, torch.bfloat16, enabled=bf16): pred = net(l)
        F.l1_loss(pred.float(), ab).backward()
        opt.step()
        opt.zero_grad()
        if l.device.type == 'cuda': torch.cuda.synchronize()
    return step

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--size', type=int, default=128)
    p.add_argument('--bs', type=int, default=16)
    p.add_argument('--rounds', type=int, default=7)
    args = p.parse_args()
    device = default_device()
    steps = {k: stepper(args.size, args.bs, device, **v) for k,v in KINDS.items()}
    times = {k: [] for k in steps}
    for i in range(args.rounds + 1):
        for k,step in steps.items():
            start = perf_counter()
            step()
            if i: times[k].append(perf_counter() - start)   # the first round warms up
    med = {k: statistics.median(v) for k,v in times.items()}
    first = next(iter(med.values()))
    print(f'{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.size} px, batch {args.bs}')
    for k,v in med.items(): print(f'{k:46s} {1e3*v:8.1f} ms a step {args.bs/v:8.1f} pictures a second {first/v:6.2f} x')

if __name__ == '__main__': main()
