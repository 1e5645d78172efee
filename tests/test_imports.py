"What importing costs, and that nothing heavy comes along with what does not need it"
import json, subprocess, sys
from importlib.metadata import version

import pytest

HEAVY = 'fastai', 'pandas', 'matplotlib', 'skimage', 'sklearn', 'scipy', 'IPython', 'torchvision', 'nbdev', 'pycocotools', 'fastprogress'
PLAIN = 'base.register', 'base.options', 'base.files', 'cli'
TORCH = ('base.color', 'base.photos', 'base.pictures', 'nets.register', 'nets.light', 'nets.weights', 'use.colorizer', 'inference')

def python(code):
    "What a new interpreter prints"
    res = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert not res.returncode, res.stderr
    return res.stdout

def brought(modules, heavy):
    "Modules of `heavy` that come with each of `modules`, imported one after the other"
    return json.loads(python(f'''
import importlib, json, sys
sys.path.insert(0, '')
res = {{}}
for o in {modules!r}:
    before = set(sys.modules)
    importlib.import_module(f'fastai_colorize.{{o}}' if o else 'fastai_colorize')
    if came := sorted({{m.partition('.')[0] for m in set(sys.modules) - before}} & {set(heavy)!r}): res[o] = came
print(json.dumps(res))'''))

def test_without_torch(): assert brought(('', *PLAIN), (*HEAVY, 'torch', 'numpy', 'PIL')) == {}
def test_with_torch_alone(): assert brought(TORCH, HEAVY) == {}

def test_colorizer_is_found_lazily():
    out = python("""
import sys, fastai_colorize
assert 'torch' not in sys.modules and 'Colorizer' in dir(fastai_colorize)
from fastai_colorize import Colorizer
from fastai_colorize.inference import Colorizer as first
from fastai_colorize.use.colorizer import Colorizer as home
assert Colorizer is first is home is fastai_colorize.Colorizer
print(fastai_colorize.__version__)""")
    assert out.strip() == version('fastai_colorize')

def test_all_names_of_the_first_release():
    import fastai_colorize.inference as inference
    for o in inference.__all__: assert callable(getattr(inference, o)), o
    for o in ('fastai_colorize', 'fastai_colorize.inference'):
        with pytest.raises(ImportError, match='nothing'): exec(f'from {o} import nothing')

def test_time_of_an_import():
    "CPU time of torch, and of what comes on top of it, in one interpreter; the better of two, for the machine may be busy"
    code = """
from time import process_time
start = process_time()
import torch
alone = process_time() - start
import fastai_colorize.use.colorizer
print((process_time() - start)/alone)"""
    assert min(float(python(code)) for _ in range(2)) <= 1.3

def test_package_says_that_it_is_typed():
    from importlib.resources import files
    assert files('fastai_colorize').joinpath('py.typed').is_file()
