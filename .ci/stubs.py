"""What type checkers and editors are to know of a class that gets its methods by `@patch`, which they cannot see: a stub (`.pyi`) beside its module.

    python .ci/stubs.py      # after nbdev-export"""
import ast, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
package = 'fastai_colorize'

def read():
    "Module → its syntax tree"
    files = [f for f in sorted((root/package).rglob('*.py')) if f.name != '_modidx.py']
    return {'.'.join(f.relative_to(root).with_suffix('').parts): ast.parse(f.read_text(encoding='utf-8')) for f in files}

def named(o): return getattr(o, 'id', getattr(o, 'attr', None))

def patched(tree):
    "(class, function, kind) for each function that `@patch` adds to a class"
    for o in tree.body:
        if not isinstance(o, ast.FunctionDef): continue
        for d in o.decorator_list:
            if named(getattr(d, 'func', d)) != 'patch': continue
            flags = {k.arg for k in getattr(d, 'keywords', [])}
            kind = 'property' if 'as_prop' in flags else 'classmethod' if 'cls_method' in flags else ''
            for c in ast.walk(o.args.args[0].annotation):
                if isinstance(c, ast.Name): yield c.id,o,kind

def imports(module, tree):
    "Its import statements, as text, absolute"
    checking = [o for i in tree.body if isinstance(i, ast.If) and named(i.test) == 'TYPE_CHECKING' for o in i.body]
    for o in [*tree.body, *checking]:
        if isinstance(o, ast.Import): yield ast.unparse(o)
        elif isinstance(o, ast.ImportFrom):
            if o.module == '__future__': continue
            if o.level:
                base = module.split('.')[:-o.level]
                o = ast.ImportFrom('.'.join([*base, o.module] if o.module else base), o.names, 0)
            yield ast.unparse(o)

def optional(a, default):
    if a is None: return None
    text = ast.unparse(a)
    none = isinstance(default, ast.Constant) and default.value is None
    return f'{text} | None' if none and 'None' not in text and 'Optional' not in text and text != 'Any' else text

def argument(a, default=None, prefix='', bare=False):
    "An argument as text; literal defaults stay"
    t = None if bare else optional(a.annotation, default)
    text = prefix + a.arg + (f': {t}' if t else '')
    if default is None: return text
    try: ast.literal_eval(default)
    except ValueError: return f'{text} = ...'
    return f'{text} = {ast.unparse(default)}'

def function(o, kind='', method=False, indent=''):
    "A function as a stub"
    a,keep = o.args,{'property', 'staticmethod', 'classmethod', 'contextmanager', 'overload', 'setter', 'cached_property'}
    decorators = [f'@{kind}'] if kind else [f'@{ast.unparse(d)}' for d in o.decorator_list if named(d) in keep]
    first = method and '@staticmethod' not in decorators
    args = [*a.posonlyargs, *a.args]
    defaults = [None]*(len(args) - len(a.defaults)) + a.defaults
    text = [argument(v, d, bare=first and i == 0) for i,(v,d) in enumerate(zip(args, defaults))]
    if a.vararg: text.append(argument(a.vararg, prefix='*'))
    elif a.kwonlyargs: text.append('*')
    text += [argument(v, d) for v,d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: text.append(argument(a.kwarg, prefix='**'))
    ret = f' -> {ast.unparse(o.returns)}' if o.returns else ' -> None' if o.name == '__init__' else ''
    return [*(indent + d for d in decorators), f"{indent}def {o.name}({', '.join(text)}){ret}: ..."]

def kind_of(v):
    "The type of an assigned value, where it is plain to see"
    if isinstance(v, ast.Constant) and v.value is not None: return type(v.value).__name__
    for t in ('Dict', 'List', 'Tuple', 'Set'):
        if isinstance(v, getattr(ast, t)): return {'Tuple': 'tuple[Any, ...]'}.get(t, t.lower())
    if isinstance(v, ast.Call) and (name := named(v.func)) and name[0].isupper(): return ast.unparse(v.func)
    return 'Any'

def assigned(o, indent=''):
    "A constant, or another name for a type"
    for t in o.targets:
        for t,v in zip(t.elts, getattr(o.value, 'elts', [None]*len(t.elts))) if isinstance(t, ast.Tuple) else [(t, o.value)]:
            if not isinstance(t, ast.Name) or t.id.startswith('_'): continue
            union = isinstance(v, ast.BinOp) and isinstance(v.op, ast.BitOr) or isinstance(v, ast.Subscript)
            yield f'{indent}{t.id} = {ast.unparse(v)}' if union and t.id[0].isupper() and not t.id.isupper() else f'{indent}{t.id}: {kind_of(v)}'

def attributes(functions):
    "What methods write into `self`, with the annotation of the argument of that name"
    res = {}
    for f in functions:
        given = {}
        for a,d in zip(reversed([*f.args.args, *f.args.kwonlyargs]), [*reversed(f.args.kw_defaults), *reversed(f.args.defaults)] + [None]*99):
            if a.annotation: given[a.arg] = optional(a.annotation, d)
        def add(name, value=None):
            if not name.startswith('_'): res.setdefault(name, given.get(name, 'Any') if value is None or named(value) == name else 'Any')
        for o in ast.walk(f):
            if isinstance(o, ast.Assign):
                for t in o.targets:
                    pairs = zip(t.elts, getattr(o.value, 'elts', t.elts)) if isinstance(t, ast.Tuple) else [(t, o.value)]
                    for t,v in pairs:
                        if isinstance(t, ast.Attribute) and named(t.value) == 'self': add(t.attr, v)
            elif isinstance(o, ast.Call) and named(o.func) == 'store_attr':
                names = o.args[0].value.replace(',', ' ').split() if o.args else [a.arg for a in f.args.args[1:]]
                for n in names: add(n)
    return res

def cls(o, extra):
    "A class as a stub, with the methods that `@patch` adds"
    keep = [f'@{ast.unparse(d)}' for d in o.decorator_list if named(getattr(d, 'func', d)) == 'dataclass']
    bases = [ast.unparse(b) for b in o.bases]
    methods = [(m, '') for m in o.body if isinstance(m, ast.FunctionDef)] + extra
    body,seen = [],{m.name for m,_ in methods}
    for m in o.body:
        if isinstance(m, ast.AnnAssign):
            if m.target.id in seen: continue                           # a method that comes by `@patch`, announced
            seen.add(m.target.id)
            body.append(f'    {m.target.id}: {optional(m.annotation, m.value)}' + (' = ...' if m.value else ''))
        elif isinstance(m, ast.Assign):
            for line in assigned(m, '    '):
                if (n := line.split(':')[0].split(' =')[0].strip()) not in seen: body.append(line); seen.add(n)
    body += [f'    {n}: {t}' for n,t in attributes([m for m,_ in methods]).items() if n not in seen]
    for i,(m,kind) in enumerate(methods):
        if m.name[0] != '_' or m.name[:2] == '__':
            if m.name not in {n.name for n,_ in methods[i+1:]} or any(named(d) in ('property', 'setter') for d in m.decorator_list): body += function(m, kind, True, '    ')
    return [*keep, f"class {o.name}{'(' + ', '.join(bases) + ')' if bases else ''}:", *(body or ['    ...'])]

def patches(trees):
    "Class → (module, function, kind) of what is patched into it"
    res = {}
    for m,tree in trees.items():
        for c,f,kind in patched(tree): res.setdefault(c, []).append((m, f, kind))
    return res

def stub(module, trees):
    "The stub of a module, as text"
    tree,added = trees[module],patches(trees)
    classes = {o.name for o in tree.body if isinstance(o, ast.ClassDef)}
    sources = [module, *sorted({m for c in classes for m,_,_ in added.get(c, []) if m != module})]
    lines = [o for m in sources for o in imports(m, trees[m]) if not o.startswith(f'from {module} import')]
    lines += [f'from {m} import {o.name}' for m in sources[1:] for o in trees[m].body if isinstance(o, ast.ClassDef) and o.name[0] != '_']
    body,mine = [],{id(f) for _,f,_ in patched(tree)}
    for o in tree.body:
        if isinstance(o, ast.ClassDef): body += ['', *cls(o, [(f, kind) for _,f,kind in added.get(o.name, [])])]
        elif isinstance(o, ast.FunctionDef) and id(o) not in mine and (o.name[0] != '_' or o.name[:2] == '__'): body += function(o)
        elif isinstance(o, ast.Assign): body += [f'__all__ = {ast.unparse(o.value)}'] if named(o.targets[0]) == '__all__' else assigned(o)
    head = f'# Made from {package}/{"/".join(module.split(".")[1:])}.py by `python .ci/stubs.py`: do not edit.'
    return '\n'.join([head, *dict.fromkeys(['from typing import Any', *lines]), '', *body]) + '\n'

def needed(trees):
    "Modules that define a class which is patched"
    added = patches(trees)
    return [m for m,t in trees.items() if any(isinstance(o, ast.ClassDef) and o.name in added for o in t.body)]

def path(module): return root/Path(*module.split('.')).with_suffix('.pyi')

def wanted(trees):
    "Stub file → its text"
    return {path(m): stub(m, trees) for m in needed(trees)}

if __name__ == '__main__':
    new = wanted(read())
    for f in set((root/package).rglob('*.pyi')) - new.keys(): f.unlink()
    for f,text in new.items(): f.write_text(text, encoding='utf-8')
