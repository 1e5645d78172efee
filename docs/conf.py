"""The documentation, which Sphinx makes of the notebooks and their saved outputs: `sphinx-build -W -c docs nbs _docs/html`

Nothing is run. An API entry takes the place of each exported cell; names of exported symbols become links to it."""
import ast, inspect, json, re, sys
from importlib import import_module
from pathlib import Path
from unicodedata import lookup

from docutils import nodes
from fastcore.docments import DocmentTbl
from fastcore.nbio import dict2nb, nb2dict
from latex2mathml.converter import convert
from nbdev.config import get_config
from nbdev.process import NBProcessor
from nbdev.processors import rm_export
from nbdev.showdoc import showdoc_nm

here = Path(__file__).parent
sys.path.insert(0, str(here))
sys.dont_write_bytecode = True                 # a build writes nothing into the repository
import browser, house
cfg = get_config(here)

def contents():
    "`toc.md` with the pages that its patterns find, each once"
    seen = set()
    for line in (here/'toc.md').read_text(encoding='utf-8').splitlines():
        if '*' not in line:
            seen.add(line)
            yield line
        else:
            found = (f.relative_to(cfg.nbs_path).with_suffix('').as_posix() for f in cfg.nbs_path.glob(line) if f.suffix in ('.ipynb', '.md'))
            new = [o for o in sorted(found) if o not in seen]
            seen.update(new)
            yield from new

def module_of(docname):
    "The module that a notebook makes, without the package's name: `base.color`; or None"
    f = cfg.nbs_path/f'{docname}.ipynb'
    m = f.exists() and re.search(r'#\| default_exp ([\w.]+)', f.read_text(encoding='utf-8'))
    return m[1] if m else None

pages = {o: module for o in contents() if (module := module_of(o))}   # page → module, in the order of the sidebar

# Sphinx
project,release = cfg.lib_path.name,cfg.version
author = copyright = f'{project} contributors'
extensions,myst_enable_extensions,myst_heading_anchors = ['myst_nb'],['dollarmath', 'attrs_block'],3
nb_execution_mode,nb_merge_streams,nb_render_markdown_format = 'off',True,'myst'   # tables in outputs too
exclude_patterns,suppress_warnings = ['**.ipynb_checkpoints'],['myst.header']   # entries are headings of level 3
html_theme,html_title,html_static_path,html_css_files = 'sphinx_book_theme',project,[str(here/'static')],['custom.css']
html_baseurl,html_math_renderer = f'{cfg.doc_host}{cfg.doc_baseurl}/','mathml'
html_context,html_favicon = dict(default_mode='auto'),str(here/'static'/'icon.svg')
html_theme_options = dict(repository_url=cfg.git_url, repository_branch=cfg.branch, path_to_docs=cfg.nbs_path.name, use_repository_button=True,
                          use_source_button=True, launch_buttons=dict(colab_url='https://colab.research.google.com'), navbar_persistent=[])

# API entries
def label(name, tree, module):
    "Target of a symbol; targets know no case, so that a class `FID` and a function `fid` need two"
    return f"{module}.{name}{'-class' if isinstance(tree, ast.ClassDef) else ''}"

def documented(src):
    "Public symbols that a piece of code defines, each with its syntax tree; after a class, its methods that have a docstring"
    for o in ast.parse(src).body:
        if isinstance(o, ast.Assign): yield from ((t.id, o) for t in o.targets if isinstance(t, ast.Name) and t.id[0] != '_')
        elif isinstance(o, (ast.FunctionDef, ast.ClassDef)):
            name = showdoc_nm(o)
            if '_' in (name[0], name.rpartition('.')[2][0]): continue
            yield name,o
            if isinstance(o, ast.ClassDef):
                yield from ((f'{name}.{m.name}', m) for m in o.body if isinstance(m, ast.FunctionDef) and m.name[0] != '_' and ast.get_docstring(m))

modules = {o: import_module(f'{project}.{o}') for o in pages.values()}
targets = {f'{prefix}{o}': f'/{page}.ipynb' for page,o in pages.items() for prefix in ('', f'{project}.') if prefix or '.' in o}
targets |= {name: '#' + label(name, tree, o) for o in reversed(modules) for name,tree in documented(inspect.getsource(modules[o]))}

def call(name, o):
    "How `o` is called, in one line"
    simple = lambda v: repr(v) if isinstance(v, (bool, int, float, str, tuple, type(None))) else '...'
    star = {inspect.Parameter.VAR_POSITIONAL: '*', inspect.Parameter.VAR_KEYWORD: '**'}
    try: parameters = inspect.signature(o).parameters.values()
    except ValueError: return name                                      # a subclass of `str`, for example
    args = [star.get(p.kind, '') + p.name + (f'={simple(p.default)}' if p.default is not p.empty else '') for p in parameters]
    return f"{name}({', '.join(a for a in args if a != 'self')})"

def entry(name, tree, src, module):
    "The API entry of a symbol that `src` defines, in Markdown"
    head = f'({label(name, tree, module)})=\n###{"#"*("." in name)} {name}'
    if isinstance(tree, ast.Assign): return f'{head}\n\n```python\n{ast.get_source_segment(src, tree)}\n```'
    o = eval(name, vars(modules[module]))
    if isinstance(o, property): return f'{head}\n\n{inspect.getdoc(o)}'
    line = inspect.getsourcelines(inspect.unwrap(getattr(o, '__func__', o)))[1]
    try: table = DocmentTbl(o)._repr_markdown_()
    except ValueError: table = ''
    for pat,new in ((r'\| NoneType \|', '|  |'), (r'\| functools\.partial\(.*?\) \|', '| … |'), (r'\n\| \w+ (\|  )+\|$', '')): table = re.sub(pat, new, table, flags=re.M)
    source = f'[source]({cfg.git_url}/blob/{cfg.branch}/{project}/{module.replace(".", "/")}.py#L{line})'
    return '\n\n'.join([head, f'```python\n{call(name, o)}\n```', f'{ast.get_docstring(tree) or ""} ({source})', table and f'{{.api}}\n{table}'])

def link(md):
    "Markdown in which names of symbols are links, outside of code, headings and links"
    name = lambda m: f'[{m[0]}]({targets[m[1]]})' if m[1] in targets else m[0]
    return ''.join(o if i % 2 else re.sub(r'(?<!\[)`([\w.]+)(?:\(\))?`(?!\])', name, o) for i,o in enumerate(re.split(r'(```.*?```|^#.*?$)', md, flags=re.S|re.M)))

def plain(cells, docname):
    "A page as Markdown, for programs that read"
    parts = [o.source if o.cell_type == 'markdown' else f'```python\n{o.source}\n```' for o in cells if o.get('source')]
    return '\n\n'.join([*parts, f'This page, with pictures: {html_baseurl}{docname}.html']) + '\n'

def document(app, docname, source):
    "Make a page of a notebook"
    if Path(app.env.doc2path(docname)).suffix != '.ipynb': return
    def entries(cell):
        if 'export' not in cell.directives_: return
        cell.directives_,cell.cell_type = {},'markdown'
        cell.source = '\n\n'.join(entry(*o, cell.source, pages[docname]) for o in documented(cell.source))
        cell.pop('outputs', None)
        cell.pop('execution_count', None)
    def links(cell):
        if cell.cell_type == 'markdown': cell.source = link(re.sub(r'<p[^>]*><img src="([^"]+)" alt="([^"]*)"></p>', r'![\2](\1)', cell.source))
    def screen(cell):
        "Of what a cell has printed, what is still on the screen at the end: progress bars are gone"
        if cell.cell_type != 'code': return
        for o in cell.outputs:
            if o.output_type == 'stream': o.text = re.sub(r'[^\n]*\r|█\n', '', ''.join(o.text))
        cell.outputs = [o for o in cell.outputs if o.output_type != 'stream' or o.text.strip()]
    proc = NBProcessor(nb=dict2nb(json.loads(source[0])), procs=[entries, rm_export, links, screen])
    proc.process()
    proc.nb.metadata['language_info'] = dict(name='python', pygments_lexer='ipython3')   # knows `!pip`
    if docname in pages:                                                # the module's docstring points to it
        text = Path(app.outdir)/f'{docname}.html.md'
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(plain(proc.nb.cells, docname), encoding='utf-8')
    if docname == app.config.root_doc: proc.nb.cells.append(dict2nb(cells=[dict(cell_type='markdown', metadata={}, source='\n'.join(contents()))]).cells[0])
    source[0] = json.dumps(nb2dict(proc.nb))

# Math as MathML, which browsers draw without a script
def math(self, node):
    double = lambda m: lookup(f"{'' if m[1] in 'CHNPQRZ' else 'MATHEMATICAL '}DOUBLE-STRUCK CAPITAL {m[1]}")   # browsers ignore `mathvariant`
    mathml = convert(node.astext(), display='block' if node.tagname == 'math_block' else 'inline')
    self.body.append(re.sub(r'(?<=<mi) mathvariant="double-struck">(\w)', lambda m: f'>{double(m)}', mathml))
    raise nodes.SkipNode

def draw_house(app):
    "The picture of the imports, for `explanations/the_house`"
    (Path(app.outdir)/'_images').mkdir(parents=True, exist_ok=True)
    house.draw(Path(app.outdir)/'_images'/'house.svg')

def setup(app):
    app.connect('builder-inited', draw_house)
    app.connect('builder-inited', lambda app: browser.assemble(app.outdir))   # for the page `start/colour_here`
    app.add_html_math_renderer('mathml', (math, None), (math, None))
    app.connect('source-read', document)
