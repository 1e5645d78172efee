"The shape of the code: short modules, short cells, short lines; imports that only go down; few names, each with its meaning."
import ast, importlib.util, json, re
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob

cfg = get_config(Path(__file__).parent)
root = cfg.config_path
spec = importlib.util.spec_from_file_location('house', root/'docs'/'house.py')
house = importlib.util.module_from_spec(spec)
spec.loader.exec_module(house)
trees = house.modules()

def cells(nb, kind='code'): return [''.join(o['source']) for o in json.loads(nb.read_text(encoding='utf-8'))['cells'] if o['cell_type'] == kind]

def exported(nb):
    "The lines of each cell that goes into the module, without directives"
    return [[o for o in src.splitlines() if not o.startswith('#|')] for src in cells(nb) if re.search(r'^#\| export', src, flags=re.M)]

notebooks = {re.search(r'#\| default_exp ([\w.]+)', s)[1]: o for o in sorted(map(Path, nbglob(root/'nbs')))
             if '#| default_exp' in (s := o.read_text(encoding='utf-8'))}
each_module = pytest.mark.parametrize('module', notebooks)

# ---- lines

@each_module
def test_lines(module):
    found = exported(notebooks[module])
    assert sum(map(len, found)) <= 240, 'a module for each thing: split it'
    assert [(len(o), o[0]) for o in found if len(o) > 40] == [], 'the skeleton of a class first, then its parts by `@patch`'
    assert [o for lines in found for o in lines if len(o) > 120] == [], 'a line has one act'

@pytest.mark.parametrize('nb', sorted(o for d in ('tutorials', 'howto', '.') for o in (root/'nbs'/d).glob('*.ipynb') if o not in notebooks.values()), ids=lambda o: o.stem)
def test_lines_that_are_read(nb):
    "Code that is read as prose has lines that fit the page"
    wide = [o for src in cells(nb) for o in src.splitlines() if len(o) > 88]
    wide += [o for src in cells(nb, 'markdown') for block in re.findall(r'```(?:python|sh)\n(.*?)```', src, flags=re.S) for o in block.splitlines() if len(o) > 88]
    assert wide == []

@pytest.mark.parametrize('nb', [o for o in map(Path, nbglob(root/'nbs')) if o.name != 'index.ipynb'], ids=lambda o: o.relative_to(root/'nbs').with_suffix('').as_posix())
def test_prose_is_short(nb):
    "A cell of prose has one thought, and no word that only we know"
    prose = [re.sub(r'```.*?```|^\|.*$|\]\([^)]*\)', '', o, flags=re.S|re.M) for o in cells(nb, 'markdown')]   # without code, tables and addresses
    assert [(len(o.split()), o[:60]) for o in prose if len(o.split()) > 200] == []
    assert not [o[:60] for o in prose if re.search(r'\brooms? `|`\w+`, a room|\b(this|the|each|every) room\b', o)], 'readers call it a module'

# ---- who leans on whom

def private(s): return s.startswith('_') and not s.startswith('__')

@pytest.mark.parametrize('module', trees)
def test_no_underscore_crosses_a_door(module):
    assert [f'{m}.{o}' for m,o in house.imports(module, trees[module], trees) if o and private(o)] == []
    mine = {o.name for o in ast.walk(trees[module]) if isinstance(o, (ast.FunctionDef, ast.ClassDef))}
    mine |= {o.attr for o in ast.walk(trees[module]) if isinstance(o, ast.Attribute) and isinstance(o.ctx, ast.Store)}
    theirs = {o.name for m,t in trees.items() if m != module for o in ast.walk(t) if isinstance(o, (ast.FunctionDef, ast.ClassDef)) and private(o.name)}
    theirs |= {o.attr for m,t in trees.items() if m != module for o in ast.walk(t) if isinstance(o, ast.Attribute) and isinstance(o.ctx, ast.Store) and private(o.attr)}
    peeked = {o.attr for o in ast.walk(trees[module]) if isinstance(o, ast.Attribute) and not (isinstance(o.value, ast.Name) and o.value.id in ('self', 'cls'))}
    assert peeked & theirs - mine == set()

def test_every_import_exists(): assert {(a, b) for a,b,_ in house.arrows() if b not in trees} == set()

def test_no_arrow_goes_up():
    "By imports, at the top of a module or inside of a function, and by the names of callbacks (`learn.sample_grid`)"
    assert {(a, b, why) for a,b,why in house.arrows() if b in trees and house.level(b) > house.level(a)} == set()

def test_no_circle():
    needs = {m: set() for m in trees}
    for a,b,_ in house.arrows(): needs[a].add(b)
    while free := [m for m,o in needs.items() if not o & needs.keys()]:        # who leans on nobody that is left
        for m in free: del needs[m]
    assert needs == {}

def test_names_of_modules_point_down():
    "A register's modules (`Register('game', 'fastai_colorize.games.wgan')`) are imported when they are asked for: still not from above"
    for m,tree in trees.items():
        named = {o.value.removeprefix('fastai_colorize.') for o in ast.walk(tree) if isinstance(o, ast.Constant) and isinstance(o.value, str) and re.fullmatch(r'fastai_colorize(\.\w+)+', o.value)}
        assert {o for o in named if o in trees and house.level(o) > house.level(m)} == set(), m

def test_the_check_sees():
    "Each of the forms that it has to find"
    tree = ast.parse('from ..base.color import _a, b\nimport torch\ndef f(learn):\n    from fastai_colorize import learner\n    return torch.autocast, hasattr(learn, "sample_grid"), learn.ema')
    assert set(house.imports('train.runs', tree, {'base.color', 'learner'})) == {('base.color', '_a'), ('base.color', 'b'), ('learner', None)}
    assert set(house.peeks(tree, {'autocast', 'sample_grid', 'ema'})) == {'sample_grid', 'ema'}
    assert [house.snake(o) for o in ('SampleGrid', 'EMA', 'ConditionalGAN', 'HTTPGet2Callback')] == ['sample_grid', 'ema', 'conditional_gan', 'http_get2']
    known = house.callbacks({'a': ast.parse('class Mine(Callback): pass'), 'b': ast.parse('class Other(Mine): pass\nclass No: pass')})
    assert known == {'mine': {'a'}, 'other': {'b'}}
    from fastai.callback.core import Callback
    assert all(house.snake(c) == type(c, (Callback,), {})().name for c in ('SampleGrid', 'EMA', 'ConditionalGAN', 'WGANGP', 'CycleGAN'))

def test_drawing(tmp_path):
    for o in ('house.svg', 'house.png'): house.draw(tmp_path/o)
    svg = (tmp_path/'house.svg').read_text(encoding='utf-8')
    assert svg.count('<g id="text_') >= len(trees) and (tmp_path/'house.png').stat().st_size > 20_000

# ---- names

@each_module
def test_public_names_have_a_meaning(module):
    "Functions and classes say it in a docstring; constants in the prose or in a comment"
    tree,text = trees[module],'\n'.join(cells(notebooks[module], 'markdown'))
    source = (root/'fastai_colorize'/f'{module.replace(".", "/")}.py').read_text(encoding='utf-8')
    defined = {o.name: o for o in tree.body if isinstance(o, (ast.FunctionDef, ast.ClassDef))}
    public = next(ast.literal_eval(o.value) for o in tree.body if isinstance(o, ast.Assign) and o.targets[0].id == '__all__')
    taken = {o for _,o in house.imports(module, tree, trees)}          # shown here, and described where they are at home
    for name in (o for o in public if o not in taken):
        if name in defined: assert ast.get_docstring(defined[name]), name
        else: assert f'`{name}' in text or re.search(rf'^{name}\b.*=.*#', source, flags=re.M), f'{name}: say in the prose what it is'

def test_words(root=root):
    "Names and words that are gone"
    for f in [*(root/'nbs').rglob('*.ipynb'), *(root/'docs').glob('*.*'), *(root/'benchmarks').glob('*.py'), root/'CONTRIBUTING.md', root/'README.md', *(root/'fastai_colorize'/'weights').glob('*.md')]:
        if '.ipynb_checkpoints' in f.parts: continue
        text = f.read_text(encoding='utf-8')
        assert not (found := re.findall(r'\b\d\d[a-z]*_(?:color|photos|coco|data|unets|resnets|generators|critics|losses|metrics|adversarial|wgan|cyclegan|learner|inference|evaluate|recipes|tables|experiments|app|cli)\b', text)), (f, found)
