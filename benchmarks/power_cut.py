"""The power fails while results are written: what a small file system holds afterwards.

    sudo python benchmarks/power_cut.py --n 200 --seed 0

Makes a file system (ext4) in a file, mounts it, and writes photos and tables in it with `base.files.writing` and
`Colorizer.colorize_files`. At a random moment, half of the time at one of the calls that sync and rename, the file
system is told to stop as in a power cut (FS_IOC_SHUTDOWN, with which file systems are tested by those who write
them): bytes that were not synced are gone, and the names since the last sync are, every other time, gone or on the
disk already, which is the worse case. It is mounted again, and each file with a final name has to be whole: the old
one or the new one. Then the same work is done again, and everything has to be there, with no half files beside.
`--without-sync` makes `fsync` do nothing: then the check has to find empty files, or it would see nothing at all. It
needs root, loop devices and mkfs.ext4; `why_not()` says what is missing. It does not show what a disk does that
promises a sync and does not keep it."""
import fcntl, os, random, shutil, signal, struct, subprocess, sys, tempfile, time, warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from pathlib import Path

SHUTDOWN = 0x8004587d    # FS_IOC_SHUTDOWN
NAMES,NOTHING = 1,2      # the journal (names, sizes) is written before, or nothing is any more

def quiet(*args):
    return subprocess.run(list(map(str, args)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

def why_not():
    "Why there can be no power cut here, or an empty text"
    if not sys.platform.startswith('linux') or os.geteuid(): return 'file systems are mounted by root, on Linux'
    if not all(map(shutil.which, ('mkfs.ext4', 'mount', 'umount'))): return 'mkfs.ext4 or mount is missing'
    with tempfile.TemporaryDirectory() as d:
        try:
            with Disk(d) as disk: disk.cut()
        except OSError as e: return f'no loop mounts here: {e}'
    return ''

class Disk:
    "A file system in a file"
    def __init__(self, folder, mb=24):
        self.image,self.path = Path(folder)/'image',Path(folder)/'disk'
        self.path.mkdir()
        with open(self.image, 'wb') as f: f.truncate(mb*2**20)
        self._do('mkfs.ext4', '-q', '-F', self.image)
    def __enter__(self):
        self.mount()
        return self
    def __exit__(self, *args): self._do('umount', self.path)
    def _do(self, *args):
        if (res := quiet(*args)).returncode: raise OSError(f'{" ".join(map(str, args))}: {res.stderr.strip()}')
    def mount(self): self._do('mount', '-o', 'loop', self.image, self.path)
    def cut(self, flag=NOTHING):
        "The power fails, and comes back"
        off(self.path, flag)
        self._do('umount', self.path)
        self.mount()

def off(path, flag):
    fd = os.open(path, os.O_RDONLY)
    try: fcntl.ioctl(fd, SHUTDOWN, struct.pack('I', flag))
    finally: os.close(fd)

# ---- the work, in a process that knows the moment

def colouring():
    "What colours a folder, with a tiny network"
    import torch
    from PIL import Image
    from skimage import data
    from fastai_colorize.use import folders   # gives `Colorizer` the method
    from fastai_colorize.use.colorizer import Colorizer
    class Steady(torch.nn.Module):
        def forward(self, l): return torch.cat([l*0 + .05, l*0 - .1], 1)
    torch.set_num_threads(1)
    im,colorizer = Image.fromarray(data.chelsea()),Colorizer(Steady(), 32)
    def photos(folder):
        Path(folder).mkdir()
        for i in range(6):
            part = im.crop((20*i, 10*i, 20*i + 120, 10*i + 90))
            part.save(Path(folder)/f'{i}.{("png", "jpg", "tif")[i%3]}')
    return photos,lambda src,out: colorizer.colorize_files(src, out)

def texts(disk, version):
    "Tables that replace those of the time before, and a folder that appears when it is whole"
    from fastai_colorize.base.files import remove_leftovers, write_json, write_text, writing_folder
    remove_leftovers(disk)
    for i in range(3): write_text(disk/'run'/f'{i}.csv', f'{version}\n'*5000)
    write_json(disk/'run'/'facts.json', [version]*2000)
    if not (disk/f'whole{version}').exists():
        with writing_folder(disk/f'whole{version}') as d:
            for i in range(2): write_text(d/f'{i}', f'{version}'*9000)

def work(disk, src, colour, version):
    texts(disk, version)
    colour(src, disk/'coloured')

def arm(disk, at, flag, sync):
    "Cut the power at the call number `at` of those that sync, rename and remove; count them"
    calls = [0]
    def counted(f, real=True):
        def call(*args, **kwargs):
            if calls[0] == at: stop(disk, flag)
            calls[0] += 1
            return f(*args, **kwargs) if real else None
        return call
    for o in ('replace', 'rename', 'fsync', 'unlink'): setattr(os, o, counted(getattr(os, o), sync or o != 'fsync'))
    return calls

def stop(disk, flag):
    off(disk, flag)
    os._exit(9)

def cut_while(disk, src, colour, version, at, after, flag, sync):
    "Work in a process of its own until the power fails; how many calls there were where it did not"
    r,w = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(r)
        sys.stdout = sys.stderr = open(os.devnull, 'w')
        calls = arm(disk.path, at, flag, sync)
        if after is not None:
            signal.signal(signal.SIGALRM, lambda *_: stop(disk.path, flag))
            signal.setitimer(signal.ITIMER_REAL, after)
        try: work(disk.path, src, colour, version)
        finally:
            os.write(w, str(calls[0]).encode())
            os._exit(0)
    os.close(w)
    with os.fdopen(r) as f: n = f.read()
    os.waitpid(pid, 0)
    return int(n or 0)

# ---- what is there afterwards

def torn(disk, right):
    "Files with a final name that are neither the old nor the new one"
    from fastai_colorize.base.photos import PhotoError, open_photo
    bad = []
    def final(o):
        hidden = any(p.startswith('.') for p in o.relative_to(disk).parts)
        return o.is_file() and 'lost+found' not in o.parts and not hidden
    for f in sorted(filter(final, disk.rglob('*'))):
        data,name = f.read_bytes(),f.relative_to(disk).as_posix()
        if not data: bad.append(f'{name} is empty')
        elif 'coloured' in name and data != right.get(name):
            try: open_photo(f)
            except PhotoError as e: bad.append(str(e))
            else: bad.append(f'{name} is another picture')
        elif name.startswith(('run', 'whole')) and len(set(data.split())) != 1 and f.suffix in ('.csv',):
            bad.append(f'{name} is torn')
        elif 'coloured' not in name and data not in right.get(name, [data]): bad.append(f'{name} is torn')
    for d in disk.glob('whole*'):
        if len(list(d.iterdir())) != 2: bad.append(f'{d.name} has appeared with {len(list(d.iterdir()))} of 2 files')
    return bad

def expected(src, colour, folder, versions=(1, 2)):
    "The contents of each file: of a photo its bytes, of a table all that it may be"
    folder = Path(folder)
    colour(src, folder/'coloured')
    right = {f'coloured/{o.name}': o.read_bytes() for o in (folder/'coloured').iterdir()}
    for v in versions:
        texts(folder, v)
        for o in [*(folder/'run').iterdir(), *(folder/f'whole{v}').iterdir()]:
            right.setdefault(o.relative_to(folder).as_posix(), []).append(o.read_bytes())
    return right

def run(n, seed, sync=True, say=print):
    "The counts of `n` cuts, and what was wrong"
    warnings.simplefilter('ignore')
    r,counts,faults = random.Random(seed),Counter(),[]
    photos,colour = colouring()
    with tempfile.TemporaryDirectory(prefix='power_cut_') as tmp:
        tmp = Path(tmp)
        photos(tmp/'src')
        (tmp/'right').mkdir()
        begin = time.monotonic()
        right = expected(tmp/'src', colour, tmp/'right')
        seconds = (time.monotonic() - begin)/2
        calls = 0
        for i in range(n):
            (tmp/f'{i}').mkdir()
            with Disk(tmp/f'{i}') as disk:
                if not calls: calls = cut_while(disk, tmp/'src', colour, 1, None, None, None, True)
                else: texts(disk.path, 1)                     # tables of the time before, on the disk for good
                for o in ('coloured', 'whole2'): shutil.rmtree(disk.path/o, ignore_errors=True)
                os.sync()
                flag,at = r.choice((NAMES, NOTHING)),r.randrange(calls) if r.random() < .5 else None
                after = None if at is not None else r.random()*seconds
                cut_while(disk, tmp/'src', colour, 2, at, after, flag, sync)
                disk.cut(flag)
                bad = torn(disk.path, right)
                counts['results there after the cut'] += sum(1 for _ in disk.path.glob('coloured/[0-9]*'))
                work(disk.path, tmp/'src', colour, 2)         # the same again
                names = {o.relative_to(disk.path).as_posix() for o in disk.path.rglob('*') if o.is_file()}
                again = [f'still {o}' for o in torn(disk.path, right)]
                again += [f'{o} is missing' for o in right if o not in names]
                again += [f'{o} is left over' for o in names if Path(o).name.startswith('.')]
            counts['torn'] += len(bad)
            if bad or again:
                faults.append(i)
                when = f'at call {at} of {calls}' if at is not None else 'at a random time'
                written = 'names' if flag == NAMES else 'nothing'
                if sync or again: say(f'cut {i} ({when}, {written} written): {"; ".join([*bad, *again])}')
            shutil.rmtree(tmp/f'{i}')
    return counts,faults

def main():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('--n', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--without-sync', action='store_true')
    args = parser.parse_args()
    if why := why_not(): sys.exit(f'No power cut: {why}.')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # not without unmounting
    counts,faults = run(args.n, args.seed, not args.without_sync)
    unsynced = ', fsync does nothing' if args.without_sync else ''
    print(f'{args.n} power cuts (ext4{unsynced}, seed {args.seed}): {dict(counts)}; '
          f'in {len(faults)} of them something was empty, torn or missing')
    return int(bool(faults) != args.without_sync)

if __name__ == '__main__': sys.exit(main())
