"""One update of critic and generator on this machine: our Callback against fastai's GANLearner and a plain loop, interleaved, medians.

    python benchmarks/gan_step.py --size 128 --bs 16

Everyone trains the same ResNet18 U-Net and 70×70 PatchGAN with BCE + 100 L1 and Adam, on the same batch in memory.
`GANLearner` knows no condition, so its generator hands L through, and it needs two batches an update: one for each network.
The plain loop is that of the PyTorch tutorials on pix2pix: one generator forward, both nets, float32."""
import argparse, statistics, warnings
from time import perf_counter

import torch, torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.torch_core import default_device
from fastai.vision.gan import FixedGANSwitcher, GANLearner
from torch import nn

from fastai_colorize.games.adversarial import ConditionalGAN, gan_adam
from fastai_colorize.nets.critics import PatchGAN
from fastai_colorize.nets.dynamic import resnet_unet
from fastai_colorize.learner import colorize_learner

class WithL(nn.Module):
    "A generator of Lab, for a trainer without conditions"
    def __init__(self, g): super().__init__(); self.g = g
    def forward(self, l): return torch.cat([l, self.g(l)], 1)

class WholeLab(PatchGAN):
    def forward(self, lab): return super().forward(lab[:,:1], lab[:,1:])

class Clock(Callback):
    "Seconds of the training batches of an epoch"
    order = -100
    def before_train(self): sync(); self.start = perf_counter()
    def after_train(self): sync(); self.time = perf_counter() - self.start

def sync():
    if torch.cuda.is_available(): torch.cuda.synchronize()

def loaders(l, y, n):
    "The same batch `n` times"
    return DataLoaders([(l, y)]*n, [(l[:2], y[:2])], device=l.device)

def of(learn, updates):
    "A function that takes `updates` updates with a Learner, and gives the seconds of one"
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda log: None
    learn.add_cb(Clock())
    def run():
        learn.fit(1, 2e-4)
        return learn.clock.time/updates
    return run

def gan_learner(l, ab, updates):
    lab = torch.cat([l, ab], 1)
    switch = FixedGANSwitcher(n_crit=1, n_gen=1)
    bce = lambda out, target: F.binary_cross_entropy_with_logits(out, torch.full_like(out, target))
    learn = GANLearner(loaders(l, lab, 2*updates), WithL(resnet_unet(pretrained=False)), WholeLab(),
                       lambda fake_pred, output, target: bce(fake_pred, 1.) + 100*F.l1_loss(output, target),
                       lambda real_pred, fake_pred: (bce(real_pred, 1.) + bce(fake_pred, 0.))/2,
                       switcher=switch, opt_func=gan_adam, switch_eval=False)
    return of(learn, updates)

def callback(l, ab, updates, **kwargs):
    learn = colorize_learner(loaders(l, ab, updates), resnet_unet(pretrained=False), metrics=[], cbs=ConditionalGAN(PatchGAN()), opt_func=gan_adam, **kwargs)
    learn.remove_cb(learn.sample_grid)
    return of(learn, updates)

def plain(l, ab, updates):
    g,c = resnet_unet(pretrained=False).to(l.device),PatchGAN().to(l.device)
    g_opt,c_opt = [torch.optim.Adam(o.parameters(), lr=2e-4, betas=(0.5, 0.999)) for o in (g, c)]
    bce = lambda out, target: F.binary_cross_entropy_with_logits(out, torch.full_like(out, target))
    def run():
        sync(); start = perf_counter()
        for _ in range(updates):
            fake = g(l)
            c.requires_grad_(True)
            c_opt.zero_grad()
            ((bce(c(l, fake.detach()), 0.) + bce(c(l, ab), 1.))/2).backward()
            c_opt.step()
            c.requires_grad_(False)
            g_opt.zero_grad()
            (bce(c(l, fake), 1.) + 100*F.l1_loss(fake, ab)).backward()
            g_opt.step()
        sync()
        return (perf_counter() - start)/updates
    return run

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--size', type=int, default=128); p.add_argument('--bs', type=int, default=16)
    p.add_argument('--rounds', type=int, default=7); p.add_argument('--updates', type=int, default=2)
    args = p.parse_args()
    warnings.simplefilter('ignore')
    device = default_device()
    l,ab = [torch.rand(args.bs, c, args.size, args.size, device=device)*2 - 1 for c in (1, 2)]
    kinds = {'GANLearner, float32':(gan_learner, {}), 'plain loop, float32':(plain, {}), 'ConditionalGAN, float32':(callback, {}),
             'ConditionalGAN, bf16 channels_last':(callback, dict(bf16=True))}
    runs = {k: f(l, ab, args.updates, **kw) for k,(f,kw) in kinds.items()}
    times = {k: [] for k in runs}
    for i in range(args.rounds + 1):
        for k,run in runs.items():
            t = run()
            if i: times[k].append(t)   # the first round warms up
    med = {k: statistics.median(v) for k,v in times.items()}
    print(f'{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.size} px, batch {args.bs}, medians of {args.rounds} rounds\n')
    print('| | ms an update | images/s | times GANLearner | times the plain loop |', '|---|---|---|---|---|', sep='\n')
    for k,v in med.items(): print(f"| {k} | {1e3*v:.0f} | {args.bs/v:.1f} | {med['GANLearner, float32']/v:.2f} | {med['plain loop, float32']/v:.2f} |")

if __name__ == '__main__': main()
