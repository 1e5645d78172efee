"""Killed at random moments, and started again: nothing is lost or left behind, and the end is the same to the last bit.

    python benchmarks/kills.py --n 50 --seed 0 [--jobs train evaluate]

Trainings of every kind (L1, cgan, wgan-clip, wgan-gp, cyclegan), colouring a folder, evaluating one, a row of the
paper and a download from a server of this computer run once undisturbed, on pictures of 32 pixels and with tiny
networks. Then each is killed, with SIGKILL or (three of ten) with SIGTERM or Ctrl-C to its whole group of processes,
at a moment in its time, or (every other one) at one of its calls that write, rename, sync or remove; one to three
times in a row. The same command goes on. What it leaves has to have the same names and the same contents as without a
stop, weights bit by bit; only times may differ. One process with all imports forks for each run: a start takes no
time, and a stop during the imports is the task of `tests/test_output.py`. POSIX only."""
import csv, io, json, mmap, os, random, shutil, signal, struct, sys, tempfile, time, traceback, warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np, torch
from fastai.torch_core import default_device
from PIL import Image
from skimage import data
from torch import nn

import fastai_colorize.games.cyclegan, fastai_colorize.games.wgan, fastai_colorize.use.evaluate
from fastai_colorize.cli import main as command
from fastai_colorize.data.coco import coco_subset
from fastai_colorize.nets.register import critics, generators
from fastai_colorize.nets.weights import load_generator, save_generator
from fastai_colorize.paper.rows import Protocol, protocols

# ---- tiny networks, few photos

@generators('tiny')
class Tiny(nn.Module):
    "Dropout draws random numbers, BatchNorm keeps a state"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(.1),
                                  nn.Conv2d(6, 2, 3, padding=1))
    def forward(self, x): return self.body(x).tanh()

@critics('tiny')
class TinyCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 4, 2, 1), nn.LeakyReLU(.2), nn.Conv2d(6, 1, 4, 2, 1))
    def forward(self, l, ab): return self.body(torch.cat([l, ab], 1))

protocols['tiny'] = Protocol('tiny', 32, {'3000': (12, 4), '10000': (16, 6)}, epochs=.2, nets=dict(unet=dict(ngf=2)),
                             pretrained=False, bf16=False, measured=32, changes=dict(resnet18=dict(generator='unet')))

def photos(folder):
    "Photos of the libraries in pieces, once grey, once in colour; a picture for a server"
    for i,name in enumerate(('astronaut', 'chelsea', 'coffee')):
        im = Image.fromarray(getattr(data, name)())
        for j in range(8):
            part = im.crop((30*j, 20*j, 30*j + 96, 20*j + 64))
            split = 'test' if j > 5 else 'train'
            for f,o in ((f'colour/{name}/{j}.png', part), (f'grey/{name}{j}.jpg', part.convert('L')),
                        (f'row/{split}/{name}{j}.png', part)):
                (folder/f).parent.mkdir(parents=True, exist_ok=True)
                o.save(folder/f)
            (folder/'site').mkdir(exist_ok=True)
            part.save(folder/'site'/f'{i*8 + j:012d}.jpg')
    torch.manual_seed(0)
    net = Tiny()
    net.config = dict(generator='tiny')
    save_generator(net, folder/'tiny.safetensors')

def serve(folder):
    "A server of its own process, and the list of its pictures"
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder/'site')))
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        try: server.serve_forever()
        finally: os._exit(0)
    server.socket.close()
    url = f'http://127.0.0.1:{server.server_port}'
    images = [dict(id=i, file_name=f'{i:012d}.jpg', coco_url=f'{url}/{i:012d}.jpg', width=96, height=64)
              for i in range(24)]
    annotations = [dict(id=i, image_id=i, category_id=1) for i in range(24)]
    listed = dict(images=images, annotations=annotations, categories=[dict(id=1, name='cat')])
    (folder/'list.json').write_text(json.dumps(listed))
    return pid

# ---- what is run: each is told where the photos are, and where to write

def training(*more, cached=False):
    def run(src, out):
        args = ['train', src/'colour', '--out', out/'run', '--generator', 'tiny', '--size', 32, '--epochs', 4,
                '--bs', 4, '--valid-pct', .2, '--precision', 'float32', '--resume', *more]
        if {'cgan', 'wgan-clip', 'wgan-gp'} & {*more}: args += ['--critic', 'tiny']
        args += ['--cache', out/'cache'] if cached else ['--workers', 2]
        return command(list(map(str, args)))
    return run

def colorize(src, out):
    return command(['colorize', str(src/'grey'), '--out', str(out/'coloured'),
                    '--weights', str(src/'tiny.safetensors'), '--render-size', '32'])

def evaluate(src, out):
    if (out/'results').exists(): return 0                # it appears when it is whole, and another one is refused
    return command(['evaluate', str(src/'colour'), '--out', str(out/'results'),
                    '--weights', str(src/'tiny.safetensors'), '--size', '32'])

def paper(src, out):
    "L1, then cgan from its weights, then the tables; the photos are theirs, for their cache"
    if not (out/'photos').exists(): os.symlink(src/'row', out/'photos')
    return command(['experiment', 'resnet18', '--data', str(out/'photos'), '--out', str(out/'results'),
                    '--protocol', 'tiny'])

def download(src, out): return int(len(coco_subset(src/'list.json', out/'photos', n=24)) != 24)

JOBS = {'train l1': training(),
        'train l1 cache ema': training('--ema', '.9', cached=True),
        'train cgan': training('--gan', 'cgan', cached=True),
        'train wgan-clip': training('--gan', 'wgan-clip', '--critic-steps', 2, cached=True),
        'train wgan-gp': training('--gan', 'wgan-gp', '--critic-steps', 2),
        'train cyclegan': training('--gan', 'cyclegan', '--epochs', 2, '--bs', 10, cached=True),
        'colorize': colorize, 'evaluate': evaluate, 'paper': paper, 'download': download}

# ---- a run, and its end

WRITES = 'replace rename fsync mkdir unlink rmdir'.split()

class Moment:
    "Counts the calls that write, in memory that the parent sees, and kills this group of processes at one of them"
    def __init__(self): self.map,self.last = mmap.mmap(-1, 8),None
    def n(self): return struct.unpack('q', self.map[:8])[0]
    def arm(self, at, signum):
        self.map[:8] = bytes(8)
        pid = os.getpid()
        def counted(f):
            def call(*args, **kwargs):
                if os.getpid() != pid: return f(*args, **kwargs)
                n = self.n()
                self.map[:8] = struct.pack('q', n + 1)
                if at is not None and n == at[0] and at[1] == 'before': os.killpg(0, signum)
                res = f(*args, **kwargs)
                if at is not None and n == at[0] and at[1] == 'after': os.killpg(0, signum)
                return res
            return call
        for o in WRITES: setattr(os, o, counted(getattr(os, o)))

def start(job, src, out, log, moment, at=None, signum=signal.SIGKILL):
    "The pid of a process that runs a job"
    stops = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)          # none reaches the child before it is ready
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
        moment.last = pid
        with suppress(OSError): os.setpgid(pid, pid)
        return pid
    status = 70
    try:
        f = open(log, 'a', buffering=1)
        with suppress(OSError): os.setpgid(0, 0)
        for fd in (1, 2): os.dup2(f.fileno(), fd)
        sys.stdout = sys.stderr = f
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        warnings.simplefilter('ignore')
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        moment.arm(at, signum)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
        status = job(src, out)
    except KeyboardInterrupt: status = 130
    except BaseException: traceback.print_exc(file=f)
    finally:
        f.flush()
        os._exit(status)

def wait(pid, seconds):
    "The status of a process, or None if it is still there"
    end = time.monotonic() + seconds
    while True:
        done,status = os.waitpid(pid, os.WNOHANG)
        if done: return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end: return None
        time.sleep(.002)

def stop(pid):
    "Kill a process, with its group"
    os.killpg(pid, signal.SIGKILL)
    wait(pid, 30)

# ---- what it left

def contents(file):
    "What has to be the same: bytes, weights, tables and facts without times"
    if file.suffix == '.safetensors':
        if file.parent.name == 'cache': return 'photos in the order in which they were ready'
        return {k: (v.shape, v.numpy().tobytes()) for k,v in load_generator(file).state_dict().items()}
    if file.suffix == '.csv':
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding='utf-8'))))
        return [{k: v for k,v in o.items() if k not in ('time', 'seconds', 'minutes')} for o in rows]
    if file.suffix == '.json':
        def plain(o):
            if isinstance(o, dict): return {k: plain(v) for k,v in o.items() if k not in ('time', 'seconds')}
            return [plain(v) for v in o] if isinstance(o, list) else o
        return plain(json.loads(file.read_text(encoding='utf-8')))
    if file.suffix == '.pt': return 'state'                 # it is all in the weights and the table
    if file.suffix == '.md' or file.name in ('time.png', 'loss.png'): return 'with times'
    return file.read_bytes()

def left(out):
    "The contents of all files and names of all folders, by name; names with random numbers without them"
    res = {}
    for o in sorted(out.rglob('*')):
        name = o.relative_to(out).as_posix()
        if o.is_file() and not o.is_symlink():
            try: res[name] = contents(o)
            except Exception as e: res[name] = f'damaged: {e}'
        else: res[name] = 'folder'
    return res

def differences(a, b):
    "In a few words"
    said = [f'missing: {o}' for o in a if o not in b] + [f'left over: {o}' for o in b if o not in a]
    return said + [f'differs: {o}' for o in a if o in b and a[o] != b[o]]

# ---- the whole

def disturb(name, src, out, log, moment, whole, r):
    "One case: killed one to three times, then to the end. The kills, and what is wrong"
    job,(seconds,writes,want) = JOBS[name],whole
    kills,wrong = [],[]
    for _ in range(r.choice((1, 1, 2, 3))):
        signum = r.choice([signal.SIGKILL]*7 + [signal.SIGTERM]*2 + [signal.SIGINT])
        at = (r.randrange(max(1, writes)), r.choice(('before', 'after'))) if r.random() < .5 else None
        after = r.random()*seconds
        text = Path(log).stat().st_size if Path(log).exists() else 0
        pid = start(job, src, out, log, moment, at, signum)
        status = wait(pid, 300 if at else after)
        if status is None and not at:
            os.killpg(pid, signum)
            status = wait(pid, 120)
        if status is None:
            stop(pid)
            wrong.append(f'does not end after {signal.Signals(signum).name}')
        if status == 0: break                                # it was faster
        said = Path(log).read_text(errors='replace')[text:]
        kills.append(f"{signal.Signals(signum).name} {'at write %d, %s' % at if at else f'after {after:.2f} s'}")
        stopped = {-signum, 128 + signum, 130}
        if status not in stopped:
            wrong.append(f'ended with status {status} after {kills[-1]}: {said.strip().splitlines()[-1:]}')
        if 'Traceback' in said: wrong.append(f'a traceback after {kills[-1]}')
    status = wait(pid := start(job, src, out, log, moment), 600)
    if status is None: stop(pid)
    if status != 0:
        said = Path(log).read_text(errors='replace')
        wrong.append(f'the same command ends with status {status}: {said.strip().splitlines()[-1:]}')
    return kills,wrong + differences(want, left(out))

def main():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('--n', type=int, default=50, help='kills')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', nargs='+', default=[''], help='only those whose name holds one of these words')
    parser.add_argument('--keep', type=Path, help='folder for what a failed case left')
    args = parser.parse_args()
    torch.set_num_threads(1)
    default_device(False)
    jobs = [o for o in JOBS if any(w in o for w in args.jobs)]
    r,moment,total,faults,signals = random.Random(args.seed),Moment(),Counter(),[],Counter()
    folder = Path(tempfile.mkdtemp(prefix='kills_'))
    server = None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        (src := folder/'src').mkdir()
        photos(src)
        server = serve(src)
        whole = {}
        for name in jobs:
            (out := folder/'whole'/name.replace(' ', '_')).mkdir(parents=True)
            begin = time.monotonic()
            status = wait(start(JOBS[name], src, out, folder/'whole.log', moment), 600)
            if status:
                sys.exit(f'{name} fails undisturbed, status {status}:\n{(folder/"whole.log").read_text()[-3000:]}')
            whole[name] = time.monotonic() - begin,moment.n(),left(out)
            seconds,writes,files = whole[name]
            print(f'{name}: undisturbed {seconds:.1f} s, {writes} writes, {len(files)} files', flush=True)
        i = 0
        while sum(total.values()) < args.n and i < 20*args.n:
            name = jobs[i % len(jobs)]
            (out := folder/f'case{i}').mkdir()
            kills,wrong = disturb(name, src, out, folder/f'{i}.log', moment, whole[name], r)
            total[name] += len(kills)
            signals.update(o.split()[0] for o in kills)
            if wrong:
                faults.append(name)
                print(f'FAULT {name}, case {i}: {"; ".join(kills)}: {" | ".join(wrong)}', flush=True)
                if args.keep:
                    shutil.copytree(out, args.keep/f'{args.seed}_{i}', symlinks=True)
                    shutil.copy(folder/f'{i}.log', args.keep/f'{args.seed}_{i}.log')
            shutil.rmtree(out)
            i += 1
        print(f'{sum(total.values())} kills ({dict(signals)}) in {i} cases, seed {args.seed}, by kind: {dict(total)}; '
              f'{len(faults)} faults')
    finally:
        if moment.last:
            with suppress(ProcessLookupError): os.killpg(moment.last, signal.SIGKILL)
        if server:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
        shutil.rmtree(folder, ignore_errors=True)
    return int(bool(faults))

if __name__ == '__main__': sys.exit(main())
