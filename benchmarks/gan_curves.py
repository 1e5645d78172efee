"""The games of a cGAN, a WGAN-clip and a WGAN-GP on the same photographs, batch by batch, as small CSV files.

    python benchmarks/gan_curves.py FOLDER --n 1000 --size 64 --epochs 5 --out fastai_colorize/results

Same photos, order, seed, generator (U-Net from scratch), learning rate and number of generator steps; the WGANs take their five critic steps on the generator's batch.
Beside the terms of each game: `pull`, the gradient that reaches the generator's picture from the critic, over that from the weighted L1 (both as Euclidean norms, mean over the batch)."""
import argparse, json, tempfile
from pathlib import Path

import pandas as pd, torch
from fastai.callback.core import Callback
from fastai.torch_core import default_device, set_seed

from fastai_colorize.games.adversarial import ConditionalGAN
from fastai_colorize.games.game import create_gan, game_entry
from fastai_colorize.nets.register import create_critic
from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.learner import colorize_learner
from fastai_colorize.base.photos import find_photos
from fastai_colorize.nets.unet import UNet
from fastai_colorize.use.evaluate import hardware

games = {'cgan': dict(gan_loss='bce'), 'wgan-clip': dict(one_batch=True), 'wgan-gp': dict(one_batch=True)}   # options of each

class Pull(Callback):
    "How hard the critic pulls at the generator's pictures, beside L1"
    order,run_valid = 6,False   # after the game, before autocast is left
    def before_fit(self): self.pulls = []
    def after_loss(self):
        l1 = self.gan.lambda_l1/self.pred[0].numel()**0.5   # its gradient is ±λ/N everywhere
        self.pulls.append((self.norm*len(self.pred)/l1).item())
    def after_pred(self):
        self.norm = torch.autograd.grad(self.gan.g_gan, self.learn.pred, retain_graph=True)[0].flatten(1).norm(dim=1).mean()
    @property
    def gan(self): return next(cb for cb in self.learn.cbs if isinstance(cb, ConditionalGAN))

def play(name, dls, args):
    "One game; its terms batch by batch, and its epochs"
    set_seed(args.seed)
    critic,pull = create_critic(ndf=args.width, **game_entry(name).critic),Pull()
    game = create_gan(name, critic=critic, **games[name])
    gan = game['cbs']
    learn = colorize_learner(dls, UNet(args.size, ngf=args.width), cbs=[gan, pull], opt_func=game['opt_func'])
    learn.remove_cb(learn.sample_grid)
    learn.fit_flat_lin(args.epochs, 0, args.lr)
    batches = pd.DataFrame(dict(gan.history, pull=pull.pulls)).rename_axis('batch')
    epochs = pd.DataFrame(learn.recorder.values, columns=learn.recorder.metric_names[1:-1])
    return batches,epochs[[o for o in epochs if o not in gan.terms]]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path); p.add_argument('--n', type=int, default=1000, help='photos'); p.add_argument('--size', type=int, default=64)
    p.add_argument('--bs', type=int, default=16); p.add_argument('--epochs', type=int, default=5); p.add_argument('--lr', type=float, default=2e-4)
    p.add_argument('--width', type=int, default=32, help='channels of the first layer, of both networks'); p.add_argument('--seed', type=int, default=0)
    p.add_argument('--games', nargs='+', choices=list(games), default=list(games)); p.add_argument('--out', type=Path, default=Path('results'))
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        dls = ColorDataLoaders.from_files(find_photos([args.folder])[:args.n], size=args.size, bs=args.bs, valid_pct=0.1, seed=args.seed, cache=tmp)
        for name in args.games:
            batches,epochs = play(name, dls, args)
            batches.map('{:.4g}'.format).to_csv(args.out/f'gan_curves_{name}.csv')
            epochs.rename_axis('epoch').round(4).to_csv(args.out/f'gan_epochs_{name}.csv')
    keys = 'size', 'bs', 'epochs', 'lr', 'width', 'seed'
    protocol = dict(photos=len(dls.train_ds), held_out=len(dls.valid_ds), **{k: getattr(args, k) for k in keys}, hardware=hardware(default_device()), torch=torch.__version__)
    (args.out/'gan_curves.json').write_text(json.dumps(protocol, indent=1) + '\n')
    print(json.dumps(protocol))

if __name__ == '__main__': main()
