"""The page under use: many requests by several clients at once, each answered as if alone; memory flat, nothing left.

    python benchmarks/visitors.py --n 2000 --clients 8 --seed 0

Starts the page in a process of its own, with a temporary folder of its own. Each request is what a visitor's browser
does for a photo at full size: POST it, and get it back. There are `--photos`
photos (JPEG, PNG; grey and colour; one that is none), with three saturations. An answer is right if the downloaded
file is, byte by byte, the one that the same functions write for this photo alone, in this process; for the file that
is no photo, if there is its sentence. The resident memory of the server is read with each answer: flat is a line
through the last 80 % that rises by less than `--most` MB. The page keeps a photo while it colours it, in a folder of its own;
when it ends (Ctrl-C), nothing of it may be left."""
import os, random, shutil, signal, subprocess, sys, tempfile, time, warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SERVER = '''import signal, torch, warnings
signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell starts what is in its background deaf to it
warnings.simplefilter('ignore')
torch.set_num_threads(1)
from fastai_colorize.app import launch
from fastai_colorize.use.colorizer import Colorizer
b = launch(Colorizer.from_pretrained(device='cpu', render_size=32), port=None, inline=False)
print('ready', b.local_url, flush=True)
b.block_thread()'''

def photos(folder, n, seed):
    "Cut-outs, and a letter"
    from PIL import Image
    from skimage import data
    r,files = random.Random(seed),[]
    sources = [Image.fromarray(getattr(data, o)()) for o in ('astronaut', 'chelsea', 'coffee')]
    for i in range(n - 1):
        im,w,h = r.choice(sources),r.randrange(60, 140),r.randrange(60, 100)
        x,y = r.randrange(im.width - w),r.randrange(im.height - h)
        files.append(folder/f'{i}.{("jpg", "png")[i % 2]}')
        im.crop((x, y, x + w, y + h)).convert(('L', 'RGB')[i//2 % 2]).save(files[-1])
    files.append(folder/'letter.jpg')
    files[-1].write_text('Dear photo,')
    return files

def single(files, saturations, folder):
    "The bytes of each answer, None for the letter"
    import torch
    from fastai_colorize.base.photos import PhotoError
    from fastai_colorize.use.colorizer import Colorizer
    from fastai_colorize.use.service import Wishes, give_colour
    torch.set_num_threads(1)
    colorizer,res = Colorizer.from_pretrained(device='cpu', render_size=32),{}
    for f in files:
        for s in saturations:
            wishes = Wishes(saturation=s, render_size=32)
            try: res[f.name,s] = give_colour(colorizer, shutil.copy(f, folder/'photo'), f.name, wishes)[0]
            except PhotoError: res[f.name,s] = None
    return res

def ask(client, url, file, saturation):
    "The coloured file, or None; and the sentence"
    photo,data = dict(photo=(file.name, file.read_bytes())),dict(saturation=saturation, render_size=32)
    res = client.post(f'{url}colorize', files=photo, data=data)
    return (res.content, '') if res.status_code == 200 else (None, res.json()['detail'])

def main():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('--n', type=int, default=2000)
    parser.add_argument('--clients', type=int, default=8)
    parser.add_argument('--photos', type=int, default=40)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--most', type=float, default=50, help='MB')
    args = parser.parse_args()
    import httpx
    from soak import resident, slope
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory(prefix='visitors_') as tmp:
        for o in ('src', 'one', 'server'): (Path(tmp)/o).mkdir()
        files,saturations = photos(Path(tmp)/'src', args.photos, args.seed),(0., 1., 1.5)
        want = single(files, saturations, Path(tmp)/'one')
        env = {**os.environ, 'TMPDIR': str(Path(tmp)/'server')}
        cmd = [sys.executable, '-W', 'ignore', '-c', SERVER]
        p = subprocess.Popen(cmd, stdout=subprocess.PIPE, text=True, env=env)
        try:
            url = next(o.split()[1] for o in p.stdout if o.startswith('ready'))
            r,counts,rows,begin = random.Random(args.seed),Counter(),[],time.monotonic()
            todo = [(r.choice(files), r.choice(saturations)) for _ in range(args.n)]
            def visit(i):
                file,s = todo[i]
                with httpx.Client(timeout=300) as client: got,said = ask(client, url, file, s)
                rows.append((len(rows), resident(p.pid)))
                if got != want[file.name,s]: return f'{file.name}, {s}: another answer ({said})'
                if got is not None: return 'equal'
                return 'refused in one sentence' if said.startswith(f'{file.name}: ') else f'no sentence: {said}'
            with ThreadPoolExecutor(args.clients) as ex: counts.update(ex.map(visit, range(args.n)))
            seconds = time.monotonic() - begin
            kept = sum(o.is_file() for o in (Path(tmp)/'server').rglob('*'))
        finally:
            p.send_signal(signal.SIGINT)
            try: p.wait(60)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
                counts.update(['does not end at Ctrl-C'])
        left = [o for o in (Path(tmp)/'server').rglob('*') if o.is_file()]
    rise,mean,most = slope(sorted(rows))
    bad = {k: v for k,v in counts.items() if k not in ('equal', 'refused in one sentence')}
    flat = rise < args.most
    print(f"{args.n:,} requests by {args.clients} clients, seed {args.seed}, {seconds:.0f} s: "
          f"{counts['equal']:,} equal to the single one, {counts['refused in one sentence']} refused in one sentence, "
          f"{sum(bad.values())} wrong; server memory of the last 80 %: mean {mean:.0f} MB, most {most:.0f} MB, "
          f"the line rises by {rise:.1f} MB ({'flat' if flat else 'NOT flat'}); {kept} files while it ran, "
          f"{len(left)} after it ended")
    for o in list(bad)[:10]: print(o)
    return int(bool(bad or left) or not flat)

if __name__ == '__main__': sys.exit(main())
