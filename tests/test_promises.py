"The page *What is promised, and which test shows it*: whom it names is there"
import ast, re
from pathlib import Path

root = Path(__file__).parent.parent
page = (root/'nbs'/'explanations'/'promises.md').read_text(encoding='utf-8')

def names_in(file):
    functions = [o for o in ast.walk(ast.parse(file.read_text(encoding='utf-8'))) if isinstance(o, ast.FunctionDef)]
    return {o.name for o in functions if o.name.startswith('test_')}

def test_tests_exist():
    named = re.findall(r'`tests/(\w+\.py)::(\w+)`', page)
    there = {f: names_in(root/'tests'/f) for f,_ in named if (root/'tests'/f).is_file()}
    assert len(named) > 50 and [(f, t) for f,t in named if t not in there.get(f, ())] == []

def test_benchmarks_exist():
    named = set(re.findall(r'`(?:python )?(benchmarks/\w+\.py)', page))
    assert {Path(o).stem for o in named} == {'fuzz', 'kills', 'soak', 'visitors', 'power_cut'}
    assert all((root/o).is_file() for o in named)

def test_each_promise_has_a_witness():
    lines = page.partition('## Measured')[0].splitlines()
    rows = [o for o in lines if o.startswith('| ') and not o.startswith('| promise')]
    promises = [o for o in rows if len(o.split('|')) == 4]
    assert len(promises) > 30
    for o in promises: assert re.search(r'`(tests/\w+\.py::\w+|benchmarks/\w+\.py)', o.split('|')[2]), o

def test_each_figure_says_how_it_was_made():
    measured = page.partition('## Measured')[2].partition('\n## ')[0]
    rows = [o for o in measured.splitlines() if o.startswith('| `python ')]
    assert len(rows) == 8
    for o in rows: assert '--n ' in o and 'seed' in o and re.search(r'\d', o.split('|')[2]), o
