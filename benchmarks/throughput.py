"""Photos a second by the service, with one thread and with several: the recipe of nbs/howto/service.ipynb, over HTTP.

    python benchmarks/throughput.py [--n 48] [--threads 1 4] [--side 0] [--locked]

Each number of threads has a server in a process of its own, with one thread of torch, and as many clients as threads;
`--locked` lets one photo at a time through the network, as before its twins. Rounds of both alternate, and the median
counts. The photos are a coffee cup of 600×400, asked for at full size, or as previews of `--side` pixels."""
import os, socket, subprocess, sys, time
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from statistics import median

SERVER = '''import sys, threading, torch, uvicorn
from fastai_colorize import Colorizer
from fastai_colorize.use.service import service
torch.set_num_threads(1)
port,workers,locked = map(int, sys.argv[1:])
colorizer = Colorizer.from_pretrained(device='cpu')
if locked: colorizer.lock = threading.Lock()
uvicorn.run(service(colorizer, workers=workers), port=port, log_level='warning')'''

def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s: return s.getsockname()[1]

def main():
    p = ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--n', type=int, default=48, help='photos of a round')
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--threads', type=int, nargs='+', default=[1, 4])
    p.add_argument('--side', type=int, default=0)
    p.add_argument('--locked', action='store_true')
    args = p.parse_args()
    import httpx
    from fastai_colorize.app import sample_files
    photo,data = sample_files()['coffee'],dict(side=args.side) if args.side else {}
    env,ports = {**os.environ, 'OMP_NUM_THREADS': '1'},{o: free_port() for o in args.threads}
    code = [sys.executable, '-W', 'ignore', '-c', SERVER]
    run = lambda o: subprocess.Popen([*code, *map(str, (ports[o], o, int(args.locked)))], env=env)
    servers,seconds = [run(o) for o in args.threads],{o: [] for o in args.threads}
    def ask(port):
        files = dict(photo=('cup.jpg', photo))
        httpx.post(f'http://127.0.0.1:{port}/colorize', files=files, data=data, timeout=300).raise_for_status()
    try:
        for port in ports.values():
            for _ in range(600):
                try: ask(port)
                except httpx.ConnectError: time.sleep(.5)
                else: break
        for _ in range(args.rounds):
            for o,port in ports.items():
                with ThreadPoolExecutor(o) as ex:
                    begin = time.perf_counter()
                    list(ex.map(ask, [port]*args.n))
                    seconds[o].append(time.perf_counter() - begin)
    finally:
        for o in servers: o.terminate()
        for o in servers: o.wait(30)
    rates = {o: args.n/median(s) for o,s in seconds.items()}
    said = ', '.join(f'{o} threads {r:.2f} a second' for o,r in rates.items())
    print(f"{'locked: ' if args.locked else ''}{said}; ratio {rates[args.threads[-1]]/rates[args.threads[0]]:.2f}, "
          f'{args.rounds} rounds of {args.n} photos, {os.cpu_count()} cores')

if __name__ == '__main__': main()
