"The page: its handlers over HTTP, and a real browser that drops a photo and gets colour."
import io, json, os, shutil, signal, socket, subprocess, sys, tempfile, threading, time, types, zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np, pytest
from PIL import Image
from skimage import data
from skimage.color import rgb2lab

pytest.importorskip('gradio', reason="the app needs Gradio: pip install -e '.[app]'")
import httpx
from fastai_colorize import app
from fastai_colorize.app import launch
from fastai_colorize.use.colorizer import Colorizer

WAIT = 120_000   # ms that the browser waits on a busy machine
PICTURE = 'img[src*="gradio_api/file"]'

@pytest.fixture(scope='module')
def colorizer(): return Colorizer.from_pretrained(device='cpu')

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Files to drop: grey photographs, a text that claims to be one, and one that is too large for the server of these tests"
    d = tmp_path_factory.mktemp('drop')
    for n in ('astronaut', 'chelsea'): Image.fromarray(getattr(data, n)()).convert('L').save(d/f'{n}.jpg')
    (d/'letter.jpg').write_text('Dear photo,')
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (700,700,3), dtype=np.uint8)).save(d/'large.png')
    return d

@pytest.fixture(scope='module')
def calls():
    "What this process asks of the network: names looked up, and addresses connected to"
    seen,mp = [],pytest.MonkeyPatch()
    connect,lookup = socket.socket.connect,socket.getaddrinfo
    mp.setattr(socket.socket, 'connect', lambda s,addr: (seen.append(addr[0]) if s.family in (socket.AF_INET, socket.AF_INET6) else None, connect(s, addr))[1])
    mp.setattr(socket, 'getaddrinfo', lambda host,*a,**k: (seen.append(host), lookup(host, *a, **k))[1])
    yield seen
    mp.undo()

@pytest.fixture(scope='module')
def served(colorizer, calls):
    blocks = launch(colorizer, max_mb=1, inline=False)
    yield blocks
    blocks.close(verbose=False)

def ab(im): return np.abs(rgb2lab(np.array(im.convert('RGB')))[...,1:]).mean()

def full(served, files, saturation=1., size=96):
    "The downloaded file (None where there is none), its name, and the sentences, by Gradio's HTTP API"
    api = f'{served.local_url}gradio_api'
    with httpx.Client(timeout=WAIT/1000) as c:
        paths = c.post(f'{api}/upload', files=[('files', (f.name, f.read_bytes())) for f in files]).json()
        event = c.post(f'{api}/call/full', json={'data':[[{'path':p, 'meta':{'_type':'gradio.FileData'}} for p in paths], saturation, size]}).json()['event_id']
        said = c.get(f'{api}/call/full/{event}').text.strip()
        assert '\nevent: complete\n' in said
        _,download,problems,_ = json.loads(said.split('data: ')[-1])
        assert download['visible'] == bool(download['value']) and problems['visible'] == bool(problems['value'])
        if not download['visible']: return None,None,problems['value']
        return io.BytesIO(c.get(download['value']['url']).content),download['value']['orig_name'],problems['value']

def test_full_size_is_what_colorizer_paints(served, colorizer, photos):
    got,name,said = full(served, [photos/'astronaut.jpg'], 1.5, 64)
    colorizer.colorize(photos/'astronaut.jpg', 1.5, 64).save(photos/'want.JPEG', quality=95)
    assert (name, said) == ('astronaut.jpg', '')
    assert np.array_equal(np.array(Image.open(got)), np.array(Image.open(photos/'want.JPEG')))

def test_zip_of_what_could_be_coloured(served, photos):
    got,name,said = full(served, [photos/n for n in ('astronaut.jpg', 'letter.jpg', 'chelsea.jpg')])
    assert name == 'coloured.zip' and zipfile.ZipFile(got).namelist() == ['astronaut.jpg', 'chelsea.jpg']
    assert said.startswith('letter.jpg: not an image') and '\n' not in said and tempfile.gettempdir() not in said

def test_no_photo_no_download(served, photos):
    got,_,said = full(served, [photos/'letter.jpg'])
    assert got is None and said.startswith('letter.jpg: not an image')

def test_two_visitors_at_once(served, colorizer, photos):
    def visit(i):
        name = ('astronaut', 'chelsea')[i % 2]
        return name,np.array(Image.open(full(served, [photos/f'{name}.jpg'])[0])).astype(int)
    want = {n: np.array(colorizer.colorize(photos/f'{n}.jpg')) for n in ('astronaut', 'chelsea')}
    with ThreadPoolExecutor(2) as ex:
        for name,got in ex.map(visit, range(4)): assert got.shape == want[name].shape and np.abs(got - want[name]).mean() < 3   # JPEG

def test_temporary_files_are_removed(colorizer, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path/'tmp'))
    (tmp_path/'tmp').mkdir()
    uploads = Path(os.environ.get('GRADIO_TEMP_DIR', tmp_path/'tmp'))
    before = {o for o in uploads.rglob('*') if o.is_file()}
    kept = lambda: [o for o in {*uploads.rglob('*'), *(tmp_path/'tmp').rglob('*')} - before if o.is_file() and o.stat().st_size and o.name != '.lock']
    blocks,photo = launch(colorizer, max_mb=1, inline=False),tmp_path/'coffee.jpg'   # Gradio names its copies by their content: one that no test before has left
    Image.fromarray(data.coffee()[:160,:200]).save(photo)
    full(blocks, [photo, photos/'chelsea.jpg'])
    assert kept()                                                                # Gradio's own copies, to be downloaded
    assert not list((tmp_path/'tmp').glob('tmp*/*'))                             # but not the folder in which they were made
    blocks.close(verbose=False)
    assert not kept()

@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX')
def test_ctrl_c_leaves_nothing(photos, tmp_path):
    code = 'from fastai_colorize.app import launch; print(flush=True); b = launch(); print("ready", b.local_url, flush=True); b.block_thread()'
    p = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code], stdout=subprocess.PIPE, text=True, env={**os.environ, 'TMPDIR':str(tmp_path), 'OMP_NUM_THREADS':'1'})
    try:
        url = next(o.split()[1] for o in p.stdout if o.startswith('ready'))
        with httpx.stream('GET', f'{url}gradio_api/heartbeat/abc', timeout=60):                         # as an open page does
            res = httpx.post(f'{url}gradio_api/upload', files={'files':(photos/'astronaut.jpg').read_bytes()}, timeout=60)
            assert res.status_code == 200 and Path(res.json()[0]).is_relative_to(tmp_path) and Path(res.json()[0]).stat().st_size
            p.send_signal(signal.SIGINT)
            p.wait(60)
    finally: p.kill()
    assert not list(tmp_path.glob('fastai_colorize_*'))
    assert not [o for o in tmp_path.rglob('*') if o.is_file()]

def test_listens_on_loopback_only(served):
    socket.create_connection(('127.0.0.1', served.server_port), 5).close()
    with pytest.raises(OSError): socket.create_connection(('127.0.0.2', served.server_port), 5)         # whoever listens everywhere answers here

def test_asks_nothing_of_the_network(served, photos, calls):
    full(served, [photos/'astronaut.jpg'])
    assert calls and set(calls) <= {'127.0.0.1', '127.0.0.2', 'localhost', '::1', None}
    assert served.share_url is None and not served.analytics_enabled

def test_large_upload_is_refused(served, photos):
    res = httpx.post(f'{served.local_url}gradio_api/upload', files={'files':(photos/'large.png').read_bytes()}, timeout=60)
    assert res.status_code == 413 and 'maximum allowed size' in res.text

def test_requests_of_others_are_refused(served, photos, capfd):
    "Another name for this computer, a script of another site, missing values: an answer of 4xx, and no traceback"
    api = f'{served.local_url}gradio_api'
    good = {'files':(photos/'astronaut.jpg').read_bytes()}
    for heads in ({'host':'evil.example:7860'}, {'origin':'http://evil.example'}, {'origin':'null'}):
        assert httpx.post(f'{api}/upload', files=good, headers=heads, timeout=60).status_code == 403
        assert httpx.get(served.local_url, headers=heads, timeout=60).status_code == 403
    assert httpx.post(f'{api}/upload', files=good, headers={'origin':served.local_url.rstrip('/')}, timeout=60).status_code == 200
    for data in ([[], None, 96], [[], 1, None], None, 3): assert httpx.post(f'{api}/call/full', json={'data':data}, timeout=60).status_code == 422
    assert httpx.post(f'{api}/call/full', content=b'{', headers={'content-type':'application/json'}, timeout=60).status_code == 400
    assert httpx.post(f'{api}/call/full', json={'data':['x'*2**21]}, timeout=60).status_code == 413
    assert 'Traceback' not in capfd.readouterr().err

def test_queue_is_full(colorizer, photos, monkeypatch):
    "One too many is told so, at once; those that wait get their colour"
    hold,real = threading.Event(),app.save_coloured
    monkeypatch.setattr(app, 'save_coloured', lambda *args: hold.wait(60) and real(*args))
    blocks = launch(colorizer, inline=False)
    try:
        blocks._queue.max_size = 2
        api = f'{blocks.local_url}gradio_api'
        photo = ('astronaut.jpg', (photos/'astronaut.jpg').read_bytes())
        path = httpx.post(f'{api}/upload', files={'files':photo}, timeout=60).json()[0]
        uploaded = {'path':path, 'meta':{'_type':'gradio.FileData'}}
        ask = lambda: httpx.post(f'{api}/call/full', json={'data':[[uploaded], 1, 96]}, timeout=60)
        res = [ask()]
        while len(res) < 12 and res[-1].status_code == 200: res.append(ask())
        assert res[-1].status_code == 503 and 'Queue is full' in res[-1].text and len(res) > 2
        hold.set()
        for o in res[:-1]:
            said = httpx.get(f"{api}/call/full/{o.json()['event_id']}", timeout=120).text
            assert '\nevent: complete\n' in said
    finally:
        hold.set()
        blocks.close(verbose=False)

def test_behind_the_proxy_of_colab(colorizer, monkeypatch):
    "The browser's Origin is the proxy's name; Host is that name or, rewritten, this computer"
    proxy = '7860-m-s-abc.us-central1-0.prod.colab.dev'
    for colab in (False, True):
        if colab: monkeypatch.setitem(sys.modules, 'google.colab', types.ModuleType('google.colab'))
        blocks = launch(colorizer, inline=False)
        try:
            for heads in ({'origin':f'https://{proxy}'}, {'origin':f'https://{proxy}', 'host':proxy}, {'host':proxy}):
                assert httpx.get(blocks.local_url, headers=heads, timeout=60).status_code == (200 if colab else 403)
            assert httpx.get(blocks.local_url, headers={'origin':'https://evil.example'}, timeout=60).status_code == 403
        finally: blocks.close(verbose=False)

def test_leftovers_of_a_killed_page(tmp_path, monkeypatch):
    "The folder of a process that was killed is removed at the next start; that of a living one, of others, and of a moment ago stay"
    from fastai_colorize import app
    from fastai_colorize.base.locks import lock_folder, unlock_folder
    dead,alive,new,other = [tmp_path/f'{o}' for o in ('fastai_colorize_app_a', 'fastai_colorize_app_b', 'fastai_colorize_app_c', 'mine')]
    for o in (dead, alive, new, other):
        o.mkdir()
        (o/'photo.jpg').write_bytes(b'x')
    code = f'import time; from fastai_colorize.base.locks import lock_folder; lock_folder({str(alive)!r}); print(1, flush=True); time.sleep(60)'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    try:
        p.stdout.readline()
        for o in (dead, alive, other): os.utime(o, (1, 1))
        for o in sorted(tmp_path.glob(f'{app._PREFIX}*')): app._remove_dead(o)
    finally: p.kill()
    assert sorted(o.name for o in tmp_path.iterdir()) == ['fastai_colorize_app_b', 'fastai_colorize_app_c', 'mine']

def test_taken_port_and_missing_gradio(served, colorizer, monkeypatch):
    with pytest.raises(OSError, match=str(served.server_port)): launch(colorizer, port=served.server_port, inline=False)
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(ImportError, match='pip install'): launch(colorizer)

@pytest.fixture(scope='module')
def chromium():
    api = pytest.importorskip('playwright.sync_api', reason='needs a browser: pip install playwright')
    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if exe is None: pytest.skip('no Chromium on this machine')
    with api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=['--no-sandbox'])
        yield browser
        browser.close()

@pytest.fixture(params=[dict(), dict(viewport=dict(width=390, height=844), is_mobile=True, has_touch=True, color_scheme='dark')], ids=['desktop', 'phone'])
def page(request, chromium, served):
    "The opened page; `asked` are the addresses that it requested, `errors` what its console said"
    context = chromium.new_context(**request.param)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.asked,page.errors = [],[]
    page.on('request', lambda r: page.asked.append(r.url))
    page.on('pageerror', lambda e: page.errors.append(str(e)))
    page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
    page.goto(served.local_url, timeout=WAIT)
    page.get_by_label('Click to upload or drop files').wait_for()
    page.wait_for_load_state('networkidle')
    yield page
    context.close()

def drop(page, *files): page.locator('#photos input[type=file]').set_input_files([str(f) for f in files])

def test_browser_gets_colour(page, photos, served):
    drop(page, photos/'astronaut.jpg')
    page.locator(PICTURE).nth(1).wait_for()                # before and after
    page.get_by_role('button', name='Colour at full size').click()
    link = page.get_by_text('Download astronaut.jpg (saturation 1, render size 96)')
    link.wait_for()
    with page.expect_download() as d: link.click()
    assert d.value.suggested_filename == 'astronaut.jpg'
    got,grey = Image.open(d.value.path()),Image.open(photos/'astronaut.jpg')
    assert got.size == grey.size and ab(grey) < .1 and ab(got) > 1
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')   # nothing to scroll sideways
    assert [u for u in page.asked if not u.startswith((served.local_url, 'blob:', 'data:'))] == []
    assert page.errors == []

def test_browser_follows_saturation(page, photos):
    drop(page, photos/'chelsea.jpg')
    after = page.locator(PICTURE).nth(1)
    after.wait_for()
    def colour():
        "Mean ab of each picture on the page"
        return [ab(Image.open(io.BytesIO(page.request.get(o).body()))) for o in page.eval_on_selector_all(PICTURE, 'all => all.map(o => o.src)')]
    assert max(colour()) > 1
    page.locator('input[type=range]').first.press('Home')                        # saturation 0
    end = time.monotonic() + WAIT/1000
    while max(res := colour()) > .5 and time.monotonic() < end: page.wait_for_timeout(300)
    assert len(res) == 2 and max(res) < .5

def test_browser_says_which_page(page, photos, tmp_path):
    grey = Image.open(photos/'chelsea.jpg').resize((64,48))
    grey.save(tmp_path/'scan.tif', save_all=True, append_images=[grey, grey])
    drop(page, tmp_path/'scan.tif')
    page.get_by_text('scan.tif, page 1 of 3').first.wait_for()
    page.get_by_role('button', name='Colour at full size').click()
    page.get_by_label('Good to know').wait_for()
    assert page.get_by_label('Good to know').input_value() == 'scan.tif: page 1 of 3'
    page.get_by_label('Clear').first.click()
    page.get_by_label('Good to know').wait_for(state='hidden')

def test_browser_refuses_with_a_sentence(page, photos):
    drop(page, photos/'letter.jpg')
    page.get_by_label('Not coloured').wait_for()
    assert page.get_by_label('Not coloured').input_value().startswith('letter.jpg: not an image')
    assert page.locator(PICTURE).count() == 0
    page.get_by_label('Clear').first.click()
    page.get_by_label('Not coloured').wait_for(state='hidden')
    drop(page, photos/'large.png')
    page.get_by_text('exceed the maximum allowed size').wait_for()
    with page.expect_file_chooser() as chooser: page.get_by_label('Click to upload or drop files').click()   # another try is possible
    chooser.value.set_files(str(photos/'astronaut.jpg'))
    page.locator(PICTURE).nth(1).wait_for()

def test_browser_shows_twelve_and_forgets_their_download(page, photos, tmp_path):
    many = [tmp_path/f'{i:02d}.jpg' for i in range(13)]
    for f in many: Image.open(photos/'chelsea.jpg').resize((64,48)).save(f)
    drop(page, *many)
    more = page.get_by_text('The first 12 are shown; the download has all of them.')
    more.wait_for()
    page.locator(PICTURE).nth(23).wait_for()                                     # before and after of the twelfth
    page.get_by_role('button', name='Colour at full size').click()
    link = page.get_by_text('Download coloured.zip')
    link.wait_for()
    with page.expect_download() as d: link.click()
    assert zipfile.ZipFile(d.value.path()).namelist() == [f.name for f in many]
    assert page.locator(PICTURE).count() == 24
    page.get_by_label('Clear').first.click()
    for o in (link, more, page.locator(PICTURE).first): o.wait_for(state='hidden')

def test_browser_says_that_the_queue_is_full(page, photos):
    full = '{"detail": "Queue is full. Max size is 32 and size is 32."}'
    page.route('**/queue/join*', lambda o: o.fulfill(status=503, content_type='application/json', body=full))
    drop(page, photos/'astronaut.jpg')
    page.get_by_text('This application is currently busy. Please try again.').first.wait_for()
