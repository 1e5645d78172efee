"A type checker passes over everything that is public, and finds a wrong call; stubs say what `@patch` has added."
import ast, importlib.util, inspect, re, subprocess, sys
from importlib import import_module
from pathlib import Path

import pytest
from nbdev.config import get_config

pytest.importorskip('mypy', reason="mypy is missing: pip install -e '.[dev]'")
root = get_config(Path(__file__).parent).config_path
spec = importlib.util.spec_from_file_location('stubs', root/'.ci'/'stubs.py')
stubs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stubs)
trees = stubs.read()

USE = '''
from pathlib import Path
from PIL import Image
from fastai_colorize import Colorizer, learner
from fastai_colorize.base.photos import find_photos, open_photo
from fastai_colorize.nets.weights import load_generator

colorizer: Colorizer = Colorizer.from_pretrained()
picture: Image.Image = colorizer.colorize('a.jpg', saturation=1.5, render_size=160)
report = colorizer.colorize_files(['a.jpg', Path('album')], Path('coloured'), overwrite=True)
for o in colorizer.colorize_batch(iter(['a.jpg', picture]), bs=4): print(o)
dls = learner.ColorDataLoaders.from_folder('photos', size=128, bs=16)
learn = learner.colorize_learner(dls, out='runs/first', bf16=True)
game = learner.colorize_learner(dls, learn.model, **learner.create_gan('cgan', lambda_l1=100))
learner.train('photos', 'runs/first', gan='cgan', epochs=2)
learner.train(['a', 'b'], Path('runs'), gan=None, folder_weights=[1, .5])
wide,high = open_photo('a.jpg').size
model = load_generator(Path('weights.safetensors'))

number: int = colorizer.colorize('a.jpg')                # wrong
colorizer.colorize('a.jpg', saturation='bold')           # wrong
colorizer.colorise('a.jpg')                              # wrong
colorizer.colorize_files('album')                        # wrong
learner.train('photos', 'runs', epochs='two')            # wrong
learner.train()                                          # wrong
'''

@pytest.fixture(scope='module')
def checked(tmp_path_factory):
    "What mypy says: of the signatures of every module, and of a script that uses them"
    folder = tmp_path_factory.mktemp('types')
    for m,tree in trees.items():
        f = folder.joinpath(*m.split('.'))
        f.parent.mkdir(parents=True, exist_ok=True)
        if m == 'fastai_colorize.__init__': f.with_suffix('.py').write_text((root/'fastai_colorize'/'__init__.py').read_text(encoding='utf-8'), encoding='utf-8')
        else: f.with_suffix('.pyi').write_text(stubs.stub(m, trees), encoding='utf-8')
    (folder/'use.py').write_text(USE, encoding='utf-8')
    res = subprocess.run([sys.executable, '-m', 'mypy', '--config-file', root/'pyproject.toml', '--cache-dir', folder/'cache', 'fastai_colorize', 'use.py'],
                         cwd=folder, capture_output=True, text=True)
    return [o for o in res.stdout.splitlines() if ': error: ' in o] or [res.stderr][:res.returncode]

def test_public_surface(checked):
    found = [o for o in checked if not o.startswith(('use.py', 'fastai_colorize/verbs'))]   # the command alone calls verbs, with what it has read
    assert not found, '\n'.join(found)

def test_scripts(checked):
    found = {int(o.split(':')[1]): o for o in checked if o.startswith('use.py')}
    wrong = {i + 1 for i,o in enumerate(USE.splitlines()) if o.endswith('# wrong')}
    assert found.keys() == wrong, [o for i,o in found.items() if i not in wrong]

def test_stubs_are_in_sync():
    new = stubs.wanted(trees)
    there = {f: f.read_text(encoding='utf-8') for f in (root/'fastai_colorize').rglob('*.pyi')}
    assert there == new, 'run `python .ci/stubs.py`'
    assert (root/'fastai_colorize'/'py.typed').exists()

def test_stub_of_a_patched_class():
    trees = {'p.a': ast.parse("""
from ..x import y
from typing import Any
__all__ = ['A']
class A(Base):
    n = 3
    go: Any
    def __init__(self, size:int=None, *args, **kw): self.size,self.other,self._own = size,args,kw
    def _hidden(self): pass"""), 'p.b': ast.parse("""
import os
@patch
def go(self: A, path:os.PathLike, bold:bool=False, f=print, *, name:str=None)->str: return ''
@patch(as_prop=True)
def half(self: A)->float: return self.size/2
@patch(cls_method=True)
def make(cls: A): return cls()""")}
    text = stubs.stub('p.a', trees)
    for line in ('from x import y', 'import os', "__all__ = ['A']", 'class A(Base):', '    n: int', '    size: int | None', '    other: Any',
                 '    def __init__(self, size: int | None = None, *args, **kw) -> None: ...',
                 '    def go(self, path: os.PathLike, bold: bool = False, f = ..., *, name: str | None = None) -> str: ...',
                 '    @property\n    def half(self) -> float: ...', '    @classmethod\n    def make(cls): ...'):
        assert f'{line}\n' in text, text
    assert '_hidden' not in text and '_own' not in text and 'go: Any' not in text
    assert stubs.needed(trees) == ['p.a']

@pytest.mark.parametrize('module', [m for m in trees if not m.endswith(('__init__', '.verbs'))])
def test_public_functions_are_annotated(module):
    "Arguments and results of what `__all__` names (arguments that take just anything may stay bare)"
    public = next((ast.literal_eval(o.value) for o in trees[module].body if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '') == '__all__'), [])
    functions = [o for o in trees[module].body if isinstance(o, ast.FunctionDef) and o.name in public and not o.decorator_list]
    gives = lambda f: any(isinstance(o, ast.Return) and o.value is not None for o in ast.walk(f))
    bare = [o.name for o in functions if o.returns is None and gives(o)]
    assert bare == [], 'what comes back?'
