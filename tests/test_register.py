"The register and the options of what stands in it: order, laziness, errors, and sources that are read without running them"
import subprocess, sys, textwrap

import pytest

from fastai_colorize.base import options
from fastai_colorize.base.options import Expression, Option, class_options, declared, function_options
from fastai_colorize.base.register import Register

things = Register('thing')

@things('first', size=1)
class First:
    "The first thing"
    def __init__(self, body,
        weight:float=1., # in kilograms
        body_opt=print, # no literal
    ): ...

@pytest.fixture
def package(tmp_path, monkeypatch):
    "A package with two modules of a register, written under a name of its own"
    name = f'pkg_{tmp_path.name}'.replace('-', '_')
    folder = tmp_path/name
    folder.mkdir()
    (folder/'__init__.py').touch()
    def write(module, text): (folder/f'{module}.py').write_text(textwrap.dedent(text).replace('PACKAGE', name))
    write('home', """
        from fastai_colorize.base.register import Register
        things = Register('thing', 'PACKAGE.one', 'PACKAGE.two')""")
    write('one', """
        from PACKAGE.home import things as register
        BIG = 100
        @register('b')
        def b(x, n:int=BIG): "Second letter" # how many
        @register('a', big=BIG)
        class A:
            def __init__(self, net,
                lr:float=1e-3, # learning rate
                mode:str='x',
            ): ...""")
    write('two', """
        from .home import things
        from .one import A
        @things('c', like=A)
        class C(A):
            "Third letter"
            def __init__(self, net,
                lr:float=1e-4,
                **kwargs
            ): super().__init__(net, mode='y', **kwargs)""")
    monkeypatch.syspath_prepend(tmp_path)
    yield name,write
    for o in [o for o in sys.modules if o.partition('.')[0] == name]: del sys.modules[o]
    options._module.cache_clear()

def test_modules_are_imported_one_after_the_other(package):
    name,_ = package
    things = getattr(__import__(f'{name}.home').home, 'things')
    assert things.known() == [] and f'{name}.one' not in sys.modules
    assert things['a'].big == 100 and f'{name}.two' not in sys.modules
    assert list(things) == ['b', 'a', 'c'] and len(things) == 3 and f'{name}.two' in sys.modules
    assert [o.name for o in things.values()] == ['b', 'a', 'c'] and dict(things.items())['c'].facts.keys() == {'like'}

def test_order_is_that_of_the_modules(package):
    name,_ = package
    __import__(f'{name}.two')
    assert list(sys.modules[f'{name}.home'].things) == ['b', 'a', 'c']

def test_unknown_names():
    with pytest.raises(ValueError, match=r"^The thing must be one of first, got 'x'\.$"): things['x']
    for o in (None, 3, ['first'], First): assert o not in things
    assert things.get('x') is None and things.get('first').make is First
    with pytest.raises(AttributeError, match='colour'): things['first'].colour

def test_taken_names(package):
    name,_ = package
    own = __import__(f'{name}.home').home.things
    for taken in ('a', 'c'):                                      # nobody has imported their modules before
        with pytest.raises(ValueError, match=f"The thing '{taken}' exists already, in {name}"): own(taken)(First)
    own('new')(First)
    own('new')(First)                                             # the same once more
    with pytest.raises(ValueError, match="'new' exists already"): own('new')(Register)
    assert list(own) == ['b', 'a', 'c', 'new']

def test_a_broken_module_says_so(package):
    name,write = package
    write('two', 'import no_such_package_at_all')
    own = __import__(f'{name}.home').home.things
    assert own['b'].name == 'b'
    with pytest.raises(ImportError, match='no_such_package_at_all'): list(own)

def test_declared_without_an_import(package):
    name,_ = package
    b,a,c = declared(f'{name}.home:things')
    assert not [o for o in sys.modules if o.startswith(f'{name}.')]
    assert (b.about, a.about, c.about) == ('Second letter', '', 'Third letter') and c.module == f'{name}.two'
    assert b.options == [Option('n', 100, int, 'how many', 'int')] or b.options[0].default == 100
    assert a.facts == dict(big=100) and c.facts == dict(like='A') and isinstance(c.facts['like'], Expression)
    assert c.options == [Option('lr', 1e-4, float, 'learning rate', 'float')]   # mode is fixed, the help is that of the base
    assert [o.name for o in a.options] == ['lr', 'mode']

def test_declared_of_what_is_alive():
    o, = declared(things)
    assert (o.name, o.facts, o.about, o.module) == ('first', dict(size=1), 'The first thing', __name__)
    assert o.options == [Option('weight', 1., float, 'in kilograms', 'float')]

def test_declared_joins_both(package):
    name,_ = package
    own = __import__(f'{name}.home').home.things
    base = __import__(f'{name}.two').two.C
    class Mine(base):
        def __init__(self, net,
            depth:int=3, # levels
            **kwargs
        ): super().__init__(net, **kwargs)
    own('mine')(Mine)
    for register in (own, f'{name}.home:things'):
        got = declared(register)
        assert [o.name for o in got] == ['b', 'a', 'c', 'mine'] and [o.name for o in got[-1].options] == ['depth', 'lr']

def test_without_a_source():
    "A definition by `exec`: names and defaults, no help"
    space = {}
    exec('def f(x, n:int=3, s="a"): pass', space)
    own = Register('function')
    own('f')(space['f'])
    assert declared(own)[0].options == [Option('n', 3, int), Option('s', 'a', str)]

@pytest.mark.parametrize('text,want', [
    ('n:int=3', (int, 3)), ('n:int|None=None', (int, None)), ('n=True', (bool, True)), ('n:"Path"=None', (None, None)), ('n:Path="a"', ('Path', 'a')),
    ('n:Optional[float]=None', (float, None)), ("n:Literal['a','b']='a'", (('a', 'b'), 'a')), ('n=(1, 2)', (None, (1, 2))), ('n=-1.5', (float, -1.5)), ('n=dict(a=1)', (None, dict(a=1)))])
def test_kinds(text, want):
    from pathlib import Path
    o, = function_options(f'def f(\n    {text}, # what it means\n): ...', 'f')
    assert (Path if want[0] == 'Path' else want[0], want[1]) == (o.kind, o.default) and o.help == 'what it means' and not o.required

def test_what_is_not_there(package):
    with pytest.raises(ValueError, match='There is no g in the source'): function_options('def f(): ...', 'g')
    with pytest.raises(ModuleNotFoundError, match='no_such_module'): class_options('no_such_module', 'A')
    with pytest.raises(ValueError, match='There is no register others'): declared(f'{package[0]}.home:others')

def test_methods_given_by_patch():
    text = """
class Game:
    def __init__(self, critic, a:int=1): ...

@patch(cls_method=True)
def create(cls:Game,
    b:int=2, # of patch
    **options
): ..."""
    assert [(o.name, o.help) for o in class_options(text, 'Game')] == [('a', ''), ('b', 'of patch')]

def test_the_registers_of_the_package_are_read_without_torch():
    code = """
import sys
from fastai_colorize.base.options import declared
games,generators = [[o.name for o in declared(f'fastai_colorize.{o}')] for o in ('games.game:games', 'nets.register:generators')]
assert 'torch' not in sys.modules and 'fastai' not in sys.modules
print(games, generators)"""
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert "['cgan', 'wgan-clip', 'wgan-gp', 'cyclegan']" in out.stdout and "'resnet18'" in out.stdout, out.stderr
