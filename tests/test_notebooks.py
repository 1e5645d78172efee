"Each notebook runs from top to bottom, in a process of its own; notebook, module and README say the same."
import importlib.util, json, multiprocessing.forkserver, os, re, signal, subprocess, sys, tempfile, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.export import nb_export

cfg = get_config(Path(__file__).parent)
root = cfg.config_path
# These take 1 to 1.7 GB: one at a time, after the others, with all cores
BIG = {'app', 'explanations/questions', 'howto/export', 'howto/train', 'learner', 'nets/dynamic', 'paper/tables',
       'tutorials/how_it_works', 'tutorials/the_papers_tables', 'tutorials/train_a_gan', 'tutorials/your_own_photographs', 'use/export'}
def big(nb): return nb.relative_to(root/'nbs').with_suffix('').as_posix() in BIG
notebooks = sorted((Path(o) for o in nbglob(root/'nbs')), key=lambda o: (big(o), o))
ids = [o.relative_to(root/'nbs').with_suffix('').as_posix() for o in notebooks]

CORES = os.cpu_count() or 1
# Each has up to 1 GB, and all tests together are to stay below 3
AT_ONCE = int(os.environ.get('NOTEBOOKS_AT_ONCE', min(2, CORES)))

def run_notebook(nb, tmp, threads):
    "In a process of its own: a notebook with its temporary files in `tmp`; beside them what it prints, and if it passed"
    import torch
    from nbdev.test import test_nb
    os.environ['OMP_NUM_THREADS'] = str(threads)                               # of the processes that it starts
    os.environ['TMPDIR'] = tempfile.tempdir = tmp
    torch.set_num_threads(threads)
    multiprocessing.set_start_method(None, force=True)                         # its own processes are the usual ones
    warnings.simplefilter('ignore')
    with open(f'{tmp}/printed', 'w', buffering=1, encoding='utf-8') as f:
        for o in (1, 2): os.dup2(f.fileno(), o)
        sys.stdout = sys.stderr = f
        ok,_ = test_nb(nb, skip_flags=cfg.tst_flags.split(), cell_timeout=int(cfg.cell_timeout))
        if ok: Path(tmp, 'passed').touch()
        f.flush()
        os._exit(0)                                                            # whatever is still open in there

def processes():
    "Where processes come from: copies of one that has imported what most notebooks do, where the system can copy"
    if 'forkserver' not in multiprocessing.get_all_start_methods(): return multiprocessing.get_context('spawn')
    res = multiprocessing.get_context('forkserver')
    most = 'pytest', 'nbdev.test', 'nbdev.export', 'fastai.vision.all', 'skimage.data', 'sklearn.datasets'
    res.set_forkserver_preload([*most])
    return res

@pytest.fixture(scope='module')
def running(request):
    "A process for each notebook that is asked for, some at once: a dict of notebook → future (if it passed, what it printed)"
    context,started,stopped = processes(),[],threading.Event()
    def run(nb, threads=1):
        if stopped.is_set(): return False,'stopped'
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as tmp:   # what a notebook trains is up to 2 GB
            p = context.Process(target=run_notebook, args=(nb, tmp, threads))
            started.append(p)
            p.start()
            p.join()
            return Path(tmp, 'passed').exists(),Path(tmp, 'printed').read_text(encoding='utf-8', errors='replace')
    def run_alone(nb):
        while not (stopped.is_set() or all(o.done() for o in small.values())):
            wait(small.values(), timeout=.5)                                   # for ever, for one that is cancelled
        return run(nb, CORES)
    asked = [o.callspec.params['nb'] for o in request.session.items if o.name.startswith('test_runs[')]
    with ThreadPoolExecutor(AT_ONCE) as pool, ThreadPoolExecutor(1) as alone, pytest.MonkeyPatch.context() as m:
        usual = dict(OMP_NUM_THREADS=1, MALLOC_ARENA_MAX=2, MALLOC_MMAP_THRESHOLD_=8_000_000)
        for k,v in usual.items(): m.setenv(k, str(v))
        small = {o: pool.submit(run, o) for o in asked if not big(o)}
        yield {**small, **{o: alone.submit(run_alone, o) for o in asked if big(o)}}
        stopped.set()                                                          # before the end, if Ctrl-C was pressed
        for o in (pool, alone): o.shutdown(wait=False, cancel_futures=True)
        for p in started:
            if p.pid: p.kill()
    if context.get_start_method() == 'forkserver':
        multiprocessing.forkserver._forkserver._stop()                         # else it stays to the end, with 0.6 GB

@pytest.mark.parametrize('nb', notebooks, ids=ids)
def test_runs(nb, running):
    passed,out = running[nb].result()
    assert passed, out

@pytest.mark.parametrize('nb', notebooks, ids=ids)
def test_module_is_in_sync(nb, tmp_path):
    default = re.search(r'#\| default_exp ([\w.]+)', nb.read_text(encoding='utf-8'))
    if default is None: pytest.skip('exports nothing')
    lib,name = tmp_path/cfg.lib_path.name,f'{default[1].replace(".", "/")}.py'
    lib.mkdir()
    nb_export(nb, lib_path=lib)
    code = lambda f: re.sub(r'^# (%%|AUTOGENERATED).*$', '', f.read_text(encoding='utf-8'), flags=re.M)  # comments with the path to the notebook
    assert nb.relative_to(root/'nbs').with_suffix('.py').as_posix() == name, "a notebook and its module stand on the same floor"
    assert code(lib/name) == code(cfg.lib_path/name), f"{name} differs from {nb.name}: run `nbdev-export`"
    assert f"'fastai_colorize.{default[1]}'" in (cfg.lib_path/'_modidx.py').read_text(encoding='utf-8')

def test_ctrl_c(tmp_path):
    "Who stops the tests still reads what they found; no notebook runs on"
    log = tmp_path/'log'
    with open(log, 'w') as f:
        p = subprocess.Popen([sys.executable, '-m', 'pytest', '-v', '-p', 'no:cacheprovider', f'{__file__}::test_runs'],
                             cwd=root, stdout=f, stderr=f, env={**os.environ, 'PYTHONUNBUFFERED': '1'}, start_new_session=True)
    try:
        for _ in range(1800):                                          # until one has run, and the next ones are on their way
            if re.search('PASSED|FAILED', log.read_text()) or p.poll() is not None: break
            time.sleep(.1)
        os.kill(p.pid, signal.SIGINT)                                  # to it alone, as an editor does; a terminal sends it to all
        p.wait(60)
        assert p.returncode == pytest.ExitCode.INTERRUPTED, log.read_text()
        assert re.search(r'KeyboardInterrupt.*^=+ .*\d (passed|failed).* in .*s.* =+$', log.read_text(), flags=re.M|re.S)
        with pytest.raises(ProcessLookupError):                        # soon nobody is left
            for _ in range(100):
                os.killpg(p.pid, 0)
                time.sleep(.1)
    finally:
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)

@pytest.mark.parametrize('nb', notebooks, ids=ids)
def test_outputs_are_there_and_small(nb):
    cells = [c for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    assert not cells or any(c['outputs'] for c in cells), f"{nb.name} has no outputs: run `nbdev-test --save`"
    assert nb.stat().st_size < 400_000
    assert 'site-packages' not in nb.read_text(encoding='utf-8'), f"{nb.name} shows paths of the machine that ran it"
    assert not any(o['output_type'] == 'error' for c in cells for o in c['outputs'])

def test_readme_is_in_sync():
    spec = importlib.util.spec_from_file_location('readme', root/'.ci'/'readme.py')
    mod = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mod)
    assert (root/'README.md').read_text(encoding='utf-8') == mod.readme(), "README.md differs from nbs/index.ipynb: run `python .ci/readme.py`"

@pytest.mark.parametrize('nb', [o for o in notebooks if o.parent.name == 'tutorials'], ids=lambda o: o.stem)
def test_tutorials_in_colab(nb):
    cells = json.loads(nb.read_text(encoding='utf-8'))['cells']
    src = [''.join(o['source']) for o in cells]
    assert f"{cfg.git_url.replace('github.com', 'colab.research.google.com/github')}/blob/{cfg.branch}/nbs/tutorials/{nb.name})" in src[0]
    assert 'minute' in src[0], f"{nb.name} does not say how long it takes"
    assert [i for i,o in enumerate(src) if '%pip install' in o] == [1]
    for o in src:   # nothing that takes hours in *Run all*
        if 'eval: false' in o: assert not re.search(r'^!', o, flags=re.M), o
    assert all('IN_COLAB' in o or 'if not' in o for o in src if 'rmtree(' in o or 'chdir(' in o), f"{nb.name} removes its files in Colab"
