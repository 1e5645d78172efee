"""How the modules of the package lean on each other, read from their source: `python docs/house.py house.svg` draws it.

`tests/test_house.py` holds them to it, and the documentation shows the drawing."""
import ast, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
name = 'fastai_colorize'
FLOORS = [['base'], ['nets'], ['data'], ['train'], ['games'], ['learner'], ['use'], ['paper'], ['app', 'verbs', 'cli'], ['inference', '']]   # lowest first
floor_of = {o: i for i,row in enumerate(FLOORS) for o in row}

def level(module):
    "The floor of a module, counted from below; '' is the package itself"
    return floor_of[module.partition('.')[0]]

def modules():
    "Module, without the package's name → its syntax tree; the package's own is ''"
    res = {}
    for f in sorted((root/name).rglob('*.py')):
        if f.name == '_modidx.py' or '__pycache__' in f.parts: continue
        parts = f.relative_to(root/name).with_suffix('').parts
        if parts[-1] == '__init__':
            if len(parts) > 1: continue                                # folders hold nothing of their own
            parts = ()
        res['.'.join(parts)] = ast.parse(f.read_text(encoding='utf-8'))
    return res

def imports(module, tree, known):
    "What a module imports of the package, at its top and inside of its functions: pairs of module and name"
    for o in ast.walk(tree):
        if isinstance(o, ast.Import):
            yield from ((a.name.removeprefix(f'{name}.'), None) for a in o.names if a.name.startswith(f'{name}.'))
        elif isinstance(o, ast.ImportFrom):
            parts = (o.module or '').split('.') if o.module else []
            if o.level: parts = module.split('.')[:-o.level if module else None] + parts   # relative
            elif parts[:1] == [name]: parts = parts[1:]
            else: continue
            for a in o.names:
                if a.name.startswith('__'): continue                   # the version
                whole = '.'.join([*parts, a.name])
                yield (whole, None) if whole in known else ('.'.join(parts), a.name)

def snake(cls):
    "The name under which fastai's Learner knows a callback of this class: `SampleGrid` → `sample_grid`"
    s = re.sub('Callback$', '', cls) or 'callback'
    return re.sub('([a-z0-9])([A-Z])', r'\1_\2', re.sub('(.)([A-Z][a-z]+)', r'\1_\2', s)).lower()

def callbacks(trees):
    "The name that a Learner gives to each callback of the package → the modules that define it"
    classes = [(m, o.name, {b.id for b in o.bases if isinstance(b, ast.Name)}) for m,t in trees.items() for o in t.body if isinstance(o, ast.ClassDef)]
    kinds = {'Callback'}
    for _ in classes: kinds |= {c for _,c,bases in classes if bases & kinds or any(b.endswith('Callback') for b in bases)}
    res = {}
    for m,c,_ in classes:
        if c in kinds: res.setdefault(snake(c), set()).add(m)
    return res

def peeks(tree, names):
    "The names among `names` that a module reads as attributes: `learn.sample_grid`, `hasattr(learn, 'sample_grid')`"
    imported = {a.asname or a.name.partition('.')[0] for o in ast.walk(tree) if isinstance(o, (ast.Import, ast.ImportFrom)) for a in o.names}
    for o in ast.walk(tree):
        if isinstance(o, ast.Attribute) and o.attr in names and not (isinstance(o.value, ast.Name) and o.value.id in imported): yield o.attr
        elif isinstance(o, ast.Call) and isinstance(o.func, ast.Name) and o.func.id in ('getattr', 'hasattr', 'setattr', 'delattr'):
            yield from (a.value for a in o.args[1:2] if isinstance(a, ast.Constant) and a.value in names)

def arrows():
    "Set of (module, module that it needs, why): by its imports, and by the names under which a Learner knows the callbacks"
    trees = modules()
    names,res = callbacks(trees),set()
    for m,tree in trees.items():
        res |= {(m, o, 'import') for o,_ in imports(m, tree, trees) if o != m}
        for attr in peeks(tree, names):
            if m not in names[attr]: res |= {(m, o, f'attribute {attr}') for o in names[attr]}
    return res

def draw(out):
    "Draw the house: a row a floor, an arrow an import"
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch
    trees,rows = modules(),{}
    for m in trees: rows.setdefault(level(m), []).append(m)
    lines = {m: len(ast.unparse(t).splitlines()) for m,t in trees.items()}
    at = {m: ((i + .5)/len(row)*10, y) for y,row in rows.items() for i,m in enumerate(row)}
    fig = Figure(figsize=(11, 8))
    ax = fig.add_axes((.01, .01, .98, .98))
    for a,b,_ in sorted(arrows()):
        if b not in at: continue
        bend = .25 if at[a][1] == at[b][1] else .04
        ax.add_patch(FancyArrowPatch(at[a], at[b], arrowstyle='-|>', mutation_scale=8, shrinkA=11, shrinkB=11, lw=.6, alpha=.45,
                                     color=f'C{level(b)}', connectionstyle=f'arc3,rad={bend}'))
    for m,(x,y) in at.items():
        label = m.rpartition('.')[2] or name
        ax.text(x, y, label, ha='center', va='center', size=9, bbox=dict(boxstyle='round', fc='white', ec=f'C{y}', lw=1.2))
    for y,row in enumerate(FLOORS):
        ax.text(-1, y, ', '.join(o for o in row if o) if y < len(FLOORS) - 1 else '', ha='left', va='center', size=10, weight='bold', color=f'C{y}')
    ax.set(xlim=(-1.1, 10.1), ylim=(-.5, len(FLOORS) - .5))
    ax.axis('off')
    fig.savefig(out)

if __name__ == '__main__': draw(sys.argv[1])
