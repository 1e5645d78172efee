"The documentation builds without a warning, all its links lead somewhere, and it works in a real browser."
import json, re, shutil, subprocess, sys, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from nbdev.config import get_config

for o in ('sphinx', 'myst_nb', 'sphinx_book_theme', 'latex2mathml', 'bs4'): pytest.importorskip(o, reason=f"{o} is missing: pip install -e '.[docs]'")
from bs4 import BeautifulSoup

cfg = get_config(Path(__file__).parent)
root,blob = cfg.config_path,f'{cfg.git_url}/blob/{cfg.branch}/'
colab = blob.replace('https://github.com/', 'https://colab.research.google.com/github/')
tree = lambda: {o for d in ('nbs', 'docs') for o in (root/d).rglob('*') if '__pycache__' not in o.parts and not any(p.startswith('.') for p in o.parts)}

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The folder of the pages"
    out,before = tmp_path_factory.mktemp('docs')/'html',tree()
    res = subprocess.run([sys.executable, '-W', 'ignore', '-m', 'sphinx', '-q', '-W', '--keep-going', '-c', 'docs', 'nbs', out], cwd=root, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    assert tree() == before, "the build has written into the repository"
    return out

@pytest.fixture(scope='module')
def pages(site): return {f.relative_to(site).as_posix(): BeautifulSoup(f.read_text(encoding='utf-8'), 'html.parser') for f in sorted(site.rglob('*.html')) if '_static' not in f.parts}

def local(page, url): return not re.match(r'[a-z]+:|//', url)

def test_every_notebook_is_a_page(pages):
    for nb in (root/'nbs').rglob('*.ipynb'):
        if '.ipynb_checkpoints' not in nb.parts: assert nb.relative_to(root/'nbs').with_suffix('.html').as_posix() in pages

def test_internal_links_and_anchors(site, pages):
    ids = {name: {o['id'] for o in soup.select('[id]')} for name,soup in pages.items()}
    bad = []
    for name,soup in pages.items():
        for tag,attr in (('a', 'href'), ('img', 'src'), ('link', 'href'), ('script', 'src')):
            for url in (o[attr] for o in soup.select(f'{tag}[{attr}]') if local(name, o[attr])):
                path,anchor = urldefrag(urljoin(f'/{name}', url))
                path = unquote(path).partition('?')[0].lstrip('/')
                if not (site/path).is_file() or (anchor and path in ids and unquote(anchor) not in ids[path]): bad.append((name, url))
    assert not bad

def test_nothing_is_loaded_from_elsewhere(pages):
    for name,soup in pages.items():
        loaded = [o.get('src') or o.get('href') for o in soup.select('script[src], img[src], iframe[src], link[rel=stylesheet], link[rel=preload]')]
        assert all(local(name, o) or o.startswith('data:') for o in loaded), name
        assert not soup.select('math merror'), name

def test_tables_in_outputs(pages):
    for name,soup in pages.items(): assert '| ---' not in ''.join(o.get_text() for o in soup.select('.cell_output, .bd-article > p')), f'{name} shows a table as text'

def test_links_into_the_repository(pages):
    for name,soup in pages.items():
        links = [o['href'] for o in soup.select('a[href]')]
        own = [o.removeprefix(p) for o in links for p in (blob, colab) if o.startswith(p)]
        for path in own:
            path,_,line = path.replace('?plain=1', '').partition('#L')
            assert (root/path).is_file(), (name, path)
            if line: assert re.match(r'\s*(@|def |class )', (root/path).read_text(encoding='utf-8').splitlines()[int(line) - 1]), (name, path, line)
        source = (root/'nbs'/name).with_suffix('.ipynb')
        if source.exists(): assert f"{colab}{source.relative_to(root).as_posix()}" in links, f'{name} has no Colab button'

def test_every_exported_symbol_has_an_entry(pages):
    ids = {o['id'] for soup in pages.values() for o in soup.select('[id]')}
    slug = lambda s: re.sub(r'[^a-z0-9]+', '-', s.lower()).strip('-')
    for nb in sorted((root/'nbs').rglob('*.ipynb')):
        if (module := re.search(r'#\| default_exp ([\w.]+)', nb.read_text(encoding='utf-8'))) is None: continue
        for name in import_module(f'fastai_colorize.{module[1]}').__all__:
            home = {slug(f'{module[1]}.{name}'), slug(f'{module[1]}.{name}-class')}
            mine = re.search(rf'^(def|class) {name}\b|^{name}\b.*?=', (root/'fastai_colorize'/f"{module[1].replace('.', '/')}.py").read_text(encoding='utf-8'), flags=re.M)
            if not mine: home |= {o for o in ids if o.endswith((slug(f'.{name}'), slug(f'.{name}-class')))}   # shown here, at home elsewhere
            assert home & ids, f'{module[1]}.{name}'

def test_entries_show_what_the_notebook_says(pages):
    "An assignment is shown as it stands in its cell, not another piece of the module"
    for name,soup in pages.items():
        for h in soup.select('h3'):
            code = h.find_next('pre')
            if code and code.get_text().lstrip().startswith('"""'): assert False, (name, h.get_text())

def test_sidebar(pages):
    "What one wants to do comes first, then the modules, floor by floor, each floor with a sentence"
    nav = pages['index.html'].select_one('nav.bd-links')
    captions = [o.get_text() for o in nav.select('.caption-text')]
    floors = {o.name for o in (root/'fastai_colorize').iterdir() if (o/'__init__.py').exists()}
    assert captions[:5] == ['Start', 'Tutorials', 'How-to', 'Explanations', 'API: what scripts and the shell call']
    assert {o.partition(': ')[0] for o in captions[5:]} == floors and all(len(o.split()) > 3 for o in captions[5:])
    tutorials = [o['href'] for o in nav.select('a[href^="tutorials/"]')]
    assert tutorials[:2] == ['tutorials/colour_your_photos.html', 'tutorials/how_it_works.html']

def test_docstrings_point_at_pages(site):
    for f in sorted((root/'fastai_colorize').rglob('[a-z]*.py')):
        if 'AUTOGENERATED' not in (src := f.read_text(encoding='utf-8')): continue
        name = re.search(rf'^Docs: {re.escape(cfg.doc_host + cfg.doc_baseurl)}/([\w./]+)', src, flags=re.M)[1]
        assert name == f.relative_to(root/'fastai_colorize').with_suffix('.html.md').as_posix()
        text = (site/name).read_text(encoding='utf-8')
        assert '```python' in text and f'{name.removesuffix(".md")}\n' in text and (site/name.removesuffix('.md')).is_file()

def test_search_index(site):
    index = json.loads((site/'searchindex.js').read_text(encoding='utf-8').removeprefix('Search.setIndex(').rstrip(')'))
    docs = {index['docnames'][i] for i,_ in index['alltitles']['Colorizer']}
    assert 'use/colorizer' in docs
    answers = [o.lower() for o,places in index['alltitles'].items()
               if any(index['docnames'][i] == 'explanations/short_answers' for i,_ in places)]
    for word in ('video', 'checkpoint', 'HEIC', 'CUDA out of memory', 'mixed precision', 'fp16', 'TensorBoard', 'Mac',
                 'Windows', 'privacy', 'commercial use', 'without internet', 'ONNX'):
        assert any(word.lower() in o for o in answers), word

# In a browser
@pytest.fixture(scope='module')
def browser():
    sync = pytest.importorskip('playwright.sync_api', reason="playwright is missing: pip install playwright")
    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome'))), None)
    if exe is None: pytest.skip('no Chromium is installed')
    with sync.sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=['--no-sandbox'])
        yield b
        b.close()

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): "Say nothing"

@pytest.fixture(scope='module')
def url(site):
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()

WIDE = '''() => {   // what makes the page wider than the window
    const scrolls = o => o && (/auto|scroll|hidden/.test(getComputedStyle(o).overflowX) || scrolls(o.parentElement))
    return document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll('body *')].filter(o => o.getBoundingClientRect().right > innerWidth + 1 && !scrolls(o.parentElement)).map(o => o.outerHTML.slice(0, 100)) }'''

CLIPPED = """() => [...document.querySelectorAll('div[class*="highlight-"] pre')]   // lines of code that go on behind the right edge
    .filter(o => !o.closest('.cell_output') && o.scrollWidth > o.clientWidth).map(o => o.textContent.slice(0, 100))"""
WRAPPED = """() => [...document.querySelectorAll('.cell_input pre')].filter(o => {   // code of which a line does not fit
    const wrapped = o.clientHeight; o.style.whiteSpace = 'pre'
    const one = o.clientHeight; o.style.whiteSpace = ''; return wrapped > one + 20 }).map(o => o.textContent.slice(0, 100))"""

def test_pages_in_a_browser(browser, url, pages):
    page,errors = browser.new_page(),[]
    page.on('console', lambda m: errors.append(m.text) if m.type in ('error', 'warning') else None)
    page.on('pageerror', lambda e: errors.append(str(e)))
    page.on('response', lambda r: errors.append(f'{r.status} {r.url}') if r.status >= 400 else None)
    page.route(lambda o: not o.startswith(url), lambda route: errors.append(route.request.url) or route.abort())
    for name in pages:
        for i,(scheme,width) in enumerate((('dark', 390), ('light', 1280))):   # a phone at night, a desk by day
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(dict(width=width, height=844))
            if i == 0: page.goto(url + name)
            page.wait_for_function(f"document.documentElement.dataset.theme == '{scheme}'")
            assert not errors, (name, errors)
            assert page.evaluate(WIDE) == [], (name, width)
            if width == 1280: assert page.evaluate(CLIPPED) == [], name
            if width == 1280 and name.startswith(('tutorials/', 'howto/', 'index')): assert page.evaluate(WRAPPED) == [], name
            pictures = page.evaluate("[...document.querySelectorAll('.bd-content img')].map(o => [o.src, getComputedStyle(o).filter, !o.complete || o.naturalWidth > 0])")
            assert all(f == 'none' and there for _,f,there in pictures), (name, scheme, pictures)
    page.close()

def test_search_in_a_browser(browser, url):
    page = browser.new_page()
    page.goto(url)
    page.locator('button.search-button-field').first.click()
    page.keyboard.type('Colorizer')
    page.keyboard.press('Enter')
    page.wait_for_selector('#search-results li a[href*="use/colorizer"]')
    page.close()

# ---- Colour a photo here

class Cut(Quiet):
    "A server whose connection breaks in the middle of the network"
    def do_GET(self):
        if not self.path.endswith('.onnx'): return super().do_GET()
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data[:len(data)//2])
        self.close_connection = True

@pytest.fixture
def colour_here(site, browser):
    "A function that opens the page, served by a handler: the page, and all requests that it makes"
    if not (site/'colour'/'about.json').exists(): pytest.skip('the site was built without onnx or npm')
    open_ones = []
    def start(handler=Quiet):
        server = ThreadingHTTPServer(('127.0.0.1', 0), partial(handler, directory=str(site)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page,asked = browser.new_page(accept_downloads=True),[]
        open_ones.append((server, page))
        page.on('request', lambda r: asked.append((r.method, r.url, r.post_data)))
        page.goto(f'http://127.0.0.1:{server.server_port}/start/colour_here.html')
        return page,asked
    yield start
    for server,page in open_ones:
        page.close()
        server.shutdown()

def drop(page, file, words):
    "Choose a file, and wait until the page says some words"
    page.set_input_files('#colour-here input[type=file]', file)
    said = page.locator('#colour-here [role=status]')
    said.filter(has_text=words).wait_for(timeout=180_000)
    return said.inner_text()

def saved(page, file):
    with page.expect_download() as d: page.click('#colour-here button')
    d.value.save_as(file)
    return d.value.suggested_filename

def test_colour_here(colour_here, tmp_path):
    "Offline after the first photo, the same pixels as Python within one step; nothing is ever sent"
    import numpy as np
    from PIL import Image
    from skimage import data
    from fastai_colorize import Colorizer
    colorizer = Colorizer.from_pretrained('l1', device='cpu')
    page,asked = colour_here()
    host = page.url.partition('start/')[0]
    assert not [url for _,url,_ in asked if '.onnx' in url or '.wasm' in url]      # nothing before it is wanted
    Image.fromarray(data.chelsea()).save(tmp_path/'cat.png')
    assert '451 × 300' in drop(page, tmp_path/'cat.png', 'has not left this computer')
    page.context.set_offline(True)
    Image.fromarray(data.coffee()).save(tmp_path/'cup.png')
    drop(page, tmp_path/'cup.png', 'cup.png, 600 × 400 pixels')
    assert saved(page, tmp_path/'got.png') == 'cup_coloured.png'
    off = np.abs(np.array(Image.open(tmp_path/'got.png').convert('RGB')).astype(int) - np.array(colorizer.colorize(tmp_path/'cup.png')))
    assert (off.max(-1) <= 1).mean() >= .99, off.max()
    exif = Image.Exif()
    exif[274] = 6                                                                  # lies on its side
    Image.fromarray(data.coffee()).save(tmp_path/'side.jpg', exif=exif, quality=95)
    drop(page, tmp_path/'side.jpg', 'side.jpg, 400 × 600 pixels')
    assert saved(page, tmp_path/'side_got.jpg') == 'side_coloured.jpg'
    got,want = (np.array(o).astype(float) for o in (Image.open(tmp_path/'side_got.jpg'), colorizer.colorize(tmp_path/'side.jpg')))
    assert got.shape == want.shape == (600, 400, 3) and 10*np.log10(255**2/np.square(got - want).mean()) > 30
    page.locator('.strength').evaluate("o => { o.value = 0; o.onchange() }")
    saved(page, tmp_path/'grey.jpg')
    assert np.ptp(np.array(Image.open(tmp_path/'grey.jpg')).astype(int), 2).mean() < 2
    assert all(m == 'GET' and not body and url.startswith((host, 'blob:')) for m,url,body in asked), asked

def test_colour_here_says_what_is_wrong(colour_here, tmp_path):
    from PIL import Image
    page,_ = colour_here(Cut)
    (tmp_path/'letter.txt').write_text('no picture')
    assert drop(page, tmp_path/'letter.txt', 'letter.txt is') == 'letter.txt is no picture that this browser can read.'
    Image.new('L', (30_000, 40)).save(tmp_path/'long.png')
    assert 'has 30000 × 40 pixels' in drop(page, tmp_path/'long.png', 'too much for a browser')
    Image.new('L', (60, 40)).save(tmp_path/'small.png')
    assert re.match(r'The download stopped after \d+\.\d of \d+\.\d MB\. Look at', drop(page, tmp_path/'small.png', 'The download stopped'))
    assert page.evaluate("caches.open('colour-here').then(o => o.keys()).then(o => o.map(r => r.url.split('.').pop()))") == ['wasm']
