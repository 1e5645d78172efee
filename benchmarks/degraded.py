"""What damage of old prints costs a colorizer: its gain over grey on clean photos, and on the same ones degraded.

    python benchmarks/degraded.py FOLDER [--weights l1 …] [--n 1004]

Photos are stretched to 256 px. The network sees them at its render size, clean, or with the damage of `Degrade` (every
picture; each kind of damage happens to every second one, drawn once for all colorizers). Its colour is put under the
photo's clean lightness both times, so that the two gains are about colour alone."""
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np, pandas as pd, torch, torch.nn.functional as F
from fastai.torch_core import set_seed
from PIL import Image

from fastai_colorize.base.color import merge_lab, split_lab, to_uint8
from fastai_colorize.base.metrics import psnr
from fastai_colorize.base.photos import find_photos, open_photo
from fastai_colorize.base.pictures import to_tensor
from fastai_colorize.data.degrade import Degrade
from fastai_colorize.nets.weights import load_generator, packaged_weights

@torch.no_grad()
def scores(model, true, l):
    "PSNR of each of a batch, coloured by what `model` says of the small `l`"
    ab = F.interpolate(model(l), true.shape[-2:], mode='bicubic')
    return psnr(to_uint8(merge_lab(split_lab(true)[0], ab)).float(), true.float())

def rows(files, models, bs=25):
    "A row a photo: PSNR of grey, and of each model, clean and degraded"
    set_seed(0)
    damage,res = Degrade(p=1.),[]
    for i in range(0, len(files), bs):
        photos = [open_photo(f).to_pil().convert('RGB') for f in files[i:i+bs]]
        def batch(n): return torch.stack([to_tensor(o.resize((n, n), Image.Resampling.BICUBIC)) for o in photos])
        true = batch(256)
        row = dict(grey=scores(lambda l: torch.zeros(len(l), 2, 8, 8), true, true))
        for name,model in models.items():
            l = split_lab(batch(model.render_size))[0].as_subclass(torch.Tensor)
            row[f'{name} clean'] = scores(model, true, l)
            row[f'{name} degraded'] = scores(model, true, damage.encodes((l,))[0])
        res.append(pd.DataFrame({k: np.asarray(v) for k,v in row.items()}))
    return pd.concat(res)

def main():
    p = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path)
    p.add_argument('--weights', nargs='+', default=['l1'])
    p.add_argument('--n', type=int)
    args = p.parse_args()
    load = lambda o: load_generator(o if Path(o).suffix else packaged_weights(o))
    models = {Path(o).stem if Path(o).suffix else o: load(o) for o in args.weights}
    t = rows(find_photos(args.folder)[:args.n], models)
    mean = t.mean()
    print(f'{len(t)} photos, grey {mean.grey:.3f} dB')
    for o in models:
        clean,bad = mean[f'{o} clean'] - mean.grey,mean[f'{o} degraded'] - mean.grey
        print(f'{o}: gain {clean:.3f} dB on clean photos, {bad:.3f} on degraded ones ({bad/clean:.0%})')

if __name__ == '__main__': main()
