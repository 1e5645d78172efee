"""One generator step of each GAN on this machine, with the critic's steps that belong to it, beside the cGAN's: time and peak memory, interleaved, medians.

    python benchmarks/variants.py --size 64 --bs 8

Everyone trains the U-Net and the 70×70 PatchGAN of full width on the same batch in memory, float32.
Time on the CPU is the processor time of the process, all threads together, so that other work on the machine counts little; on CUDA it is that of the clock.
Memory is what a step allocates on top of the networks and what their optimizers remember: activations, gradients and all temporary tensors, at its highest.
On the CPU it is read from PyTorch's profiler, which sees each tensor come and go (but not the scratch space inside of oneDNN); on CUDA it is `max_memory_allocated`."""
import argparse, json, statistics, tempfile, warnings
from pathlib import Path
from time import perf_counter, process_time

import torch, torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.torch_core import default_device

from fastai_colorize.games.adversarial import ConditionalGAN, gan_adam
from fastai_colorize.nets.critics import PatchGAN
from fastai_colorize.games.cyclegan import CycleGAN
from fastai_colorize.use.evaluate import hardware
from fastai_colorize.nets.unet import UNet
from fastai_colorize.games.wgan import WGANClip, WGANGP, add_dropout, wgan_rmsprop

def variants(
    size, # side of the pictures
    n_critic, # critic steps of a WGAN
) -> dict: # name: arguments of `game`; one line a row of the table
    clip = lambda **kw: dict(gan=WGANClip(PatchGAN(norm='instance'), critic_steps=n_critic, **kw), opt_func=wgan_rmsprop)
    gp = lambda **kw: dict(gan=WGANGP(PatchGAN(norm='layer'), critic_steps=n_critic, **kw))
    return {'cGAN': dict(gan=ConditionalGAN(PatchGAN())),
            f'WGAN-clip, {n_critic} critic steps': clip(),
            f'WGAN-clip, {n_critic} critic steps, one batch': clip(one_batch=True),
            f'WGAN-GP, {n_critic} critic steps': gp(),
            f'WGAN-GP, {n_critic} critic steps, one batch': gp(one_batch=True),
            f'WGAN-GP with CT, {n_critic} critic steps': dict(gan=WGANGP(add_dropout(PatchGAN(norm='layer')), lambda_ct=2., critic_steps=n_critic)),
            'CycleGAN, two U-Nets, two critics': dict(gan=CycleGAN(UNet(size, 3, 1, norm='instance'), PatchGAN(norm='instance'), PatchGAN(1, norm='instance')),
                                                      net=UNet(size, norm='instance'), unpaired=True)}

class Clock(Callback):
    "Seconds of an epoch's training batches"
    order = -100
    def before_train(self): self.start = self.now()
    def after_train(self): self.time = self.now() - self.start
    def now(self):
        if not next(self.model.parameters()).is_cuda: return process_time()
        torch.cuda.synchronize()
        return perf_counter()

class Peak(Callback):
    "Bytes that an epoch's training batches allocate, at their highest"
    order = -100
    def before_train(self):
        self.cuda = next(self.model.parameters()).is_cuda
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated()
        else:
            self.prof = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
            self.prof.start()
    def after_train(self):
        if self.cuda: self.bytes = torch.cuda.max_memory_allocated() - self.base
        else:
            self.prof.stop()
            with tempfile.TemporaryDirectory() as tmp:
                path = Path(tmp)/'trace.json'
                self.prof.export_chrome_trace(str(path))
                events = [o for o in json.loads(path.read_text())['traceEvents'] if o.get('name') == '[memory]']
            first = min(events, key=lambda o: o['ts'])['args']
            self.bytes = max(o['args']['Total Allocated'] for o in events) - (first['Total Allocated'] - first['Bytes'])

def game(size, bs, device, gan, opt_func=gan_adam, net=None, unpaired=False):
    "A quiet Learner whose epoch is one generator step"
    l,ab = [torch.rand(bs, c, size, size, device=device)*2 - 1 for c in (1, 2)]
    y = torch.cat([l.flip(0), ab], 1) if unpaired else ab
    dls = DataLoaders([(l, y)]*gan.critic_steps, [(l[:1], ab[:1])], device=device)
    learn = Learner(dls, net or UNet(size), loss_func=F.l1_loss, opt_func=opt_func, cbs=gan).remove_cb(ProgressCallback)
    learn.logger = lambda log: None
    return learn

def step(learn, cb):
    "One generator step under the eyes of `cb`"
    learn.fit(1, 5e-5, cbs=cb)
    return cb

def passes(learn):
    "Forward passes in training of the generators and of the critics in one generator step"
    n = [0, 0]
    def hook(i):
        def count(m, *_): n[i] += m.training
        return count
    gan = next(cb for cb in learn.cbs if isinstance(cb, ConditionalGAN))
    nets = [(0, learn.model), (1, gan.critic)] + ([(0, gan.grey)] if isinstance(gan, CycleGAN) else [])
    handles = [m.register_forward_hook(hook(i)) for i,m in nets]
    learn.fit(1, 5e-5)
    for h in handles: h.remove()
    return n

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--size', type=int, default=64); p.add_argument('--bs', type=int, default=16); p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--n-critic', type=int, default=5)
    args = p.parse_args()
    warnings.simplefilter('ignore')
    device = default_device()
    games = {k: game(args.size, args.bs, device, **v) for k,v in variants(args.size, args.n_critic).items()}
    n = {k: passes(o) for k,o in games.items()}   # warms up as well
    peaks = {k: step(o, Peak()).bytes for k,o in games.items()}
    times = {k: [] for k in games}
    for _ in range(args.rounds):
        for k,o in games.items(): times[k].append(step(o, Clock()).time)
    med = {k: statistics.median(v) for k,v in times.items()}
    print(f'{hardware(device)}, torch {torch.__version__}, {args.size} px, batch {args.bs}, medians of {args.rounds} rounds\n')
    print('| | generator, critic passes | ms a generator step | times cGAN | peak MB | times cGAN |', '|---|---|---|---|---|---|', sep='\n')
    for k in games: print(f"| {k} | {n[k][0]}, {n[k][1]} | {1e3*med[k]:.0f} | {med[k]/med['cGAN']:.2f} | {peaks[k]/2**20:.0f} | {peaks[k]/peaks['cGAN']:.2f} |")

if __name__ == '__main__': main()
