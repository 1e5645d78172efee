"The page: its requests over HTTP, and a real browser that drops a photo, corrects it, and gets colour."
import io, json, os, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, types, zipfile
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np, pytest
from PIL import Image
from skimage import data
from skimage.color import rgb2lab

for o in ('fastapi', 'uvicorn', 'multipart'): pytest.importorskip(o, reason="the app needs FastAPI: pip install -e '.[app]'")
import httpx
from fastai_colorize.app import launch
from fastai_colorize.use import orders, service
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.use.service import work_folder

WAIT = 120_000   # ms that the browser waits on a busy machine

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
    def connected(s, addr):
        if s.family in (socket.AF_INET, socket.AF_INET6): seen.append(addr[0])
        return connect(s, addr)
    mp.setattr(socket.socket, 'connect', connected)
    mp.setattr(socket, 'getaddrinfo', lambda host,*a,**k: (seen.append(host), lookup(host, *a, **k))[1])
    yield seen
    mp.undo()

@pytest.fixture(scope='module')
def served(colorizer, calls):
    served = launch(colorizer, max_mb=1, inline=False)
    yield served
    served.close()

def ab(im): return np.abs(rgb2lab(np.array(im.convert('RGB')))[...,1:]).mean()

def post(served, file, route='colorize', heads=None, **fields):
    "The answer to a photo"
    photo = dict(photo=(file.name, file.read_bytes()))
    return httpx.post(f'{served.local_url}{route}', files=photo, data=fields, headers=heads, timeout=WAIT/1000)

def picture(res): return Image.open(io.BytesIO(res.raise_for_status().content))

# ---- over HTTP

def test_full_size_is_what_colorizer_paints(served, colorizer, photos):
    res = post(served, photos/'astronaut.jpg', saturation=1.5, render_size=64)
    colorizer.colorize(photos/'astronaut.jpg', 1.5, 64).save(photos/'want.JPEG', quality=95)
    assert res.content == (photos/'want.JPEG').read_bytes() and res.headers['content-type'] == 'image/jpeg'
    assert res.headers['content-disposition'] == "attachment; filename*=UTF-8''astronaut_coloured.jpg"

def test_one_sentence(served, photos):
    res = post(served, photos/'letter.jpg')
    said = res.json()['detail']
    assert res.status_code == 422 and said.startswith('letter.jpg: not an image')
    assert '\n' not in said and tempfile.gettempdir() not in said

def test_two_visitors_at_once(served, colorizer, photos):
    def visit(i):
        name = ('astronaut', 'chelsea')[i % 2]
        return name,np.array(picture(post(served, photos/f'{name}.jpg'))).astype(int)
    want = {n: np.array(colorizer.colorize(photos/f'{n}.jpg')) for n in ('astronaut', 'chelsea')}
    with ThreadPoolExecutor(2) as ex:
        for name,got in ex.map(visit, range(4)):
            assert got.shape == want[name].shape and np.abs(got - want[name]).mean() < 3   # JPEG

def test_temporary_files_are_removed(served, photos):
    "A photo is there while it is being coloured, and no longer, whether it can be or not"
    for o in ('astronaut.jpg', 'letter.jpg'): post(served, photos/o)
    post(served, photos/'chelsea.jpg', hints='[[1, 1, "no"]]')
    assert [o.name for o in Path(work_folder().name).iterdir()] == ['.lock']

@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX')
def test_ctrl_c_leaves_nothing(photos, tmp_path):
    code = '''import time
from fastai_colorize.use import orders
orders.paint = lambda *args: print("painting", flush=True) or time.sleep(2)
from fastai_colorize.app import launch
served = launch()
print("ready", served.local_url, flush=True)
served.block_thread()'''
    env = {**os.environ, 'TMPDIR':str(tmp_path), 'OMP_NUM_THREADS':'1'}
    p = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code], stdout=subprocess.PIPE, text=True, env=env)
    try:
        url = next(o.split()[1] for o in p.stdout if o.startswith('ready'))
        photo = {'photo':(photos/'astronaut.jpg').read_bytes()}
        with ThreadPoolExecutor(1) as ex:
            ex.submit(lambda: httpx.post(f'{url}colorize', files=photo, timeout=60))
            assert next(p.stdout) == 'painting\n'                                    # in the middle of a photo
            assert [o for o in tmp_path.rglob('photo') if o.stat().st_size]
            p.send_signal(signal.SIGINT)
            p.wait(60)
    finally: p.kill()
    assert not list(tmp_path.glob('fastai_colorize_*'))
    assert not [o for o in tmp_path.rglob('*') if o.is_file()]

def test_listens_on_loopback_only(served):
    socket.create_connection(('127.0.0.1', served.server_port), 5).close()
    with pytest.raises(OSError): socket.create_connection(('127.0.0.2', served.server_port), 5)   # whoever listens everywhere answers here

def test_asks_nothing_of_the_network(served, photos, calls):
    post(served, photos/'astronaut.jpg')
    assert calls and set(calls) <= {'127.0.0.1', '127.0.0.2', 'localhost', '::1', None}
    assert served.share_url is None

def test_large_upload_is_refused(served, photos):
    res = post(served, photos/'large.png')
    assert res.status_code == 413 and res.json()['detail'] == 'A photo may have 1 MB; this one is larger.'
    def unsaid(): yield from [b'x'*2**16]*20                                         # without a length in the head
    heads = {'content-type': 'multipart/form-data; boundary=x'}
    try: assert httpx.post(f'{served.local_url}colorize', content=unsaid(), headers=heads, timeout=60).status_code >= 400
    except httpx.HTTPError: pass                                                     # cut off

def test_requests_of_others_are_refused(served, photos, capfd):
    "Another name for this computer, a script of another site, missing values: an answer of 4xx, and no traceback"
    photo = photos/'astronaut.jpg'
    for heads in ({'host':'evil.example:7860'}, {'origin':'http://evil.example'}, {'origin':'null'}):
        assert post(served, photo, heads=heads).status_code == 403
        assert httpx.get(served.local_url, headers=heads, timeout=60).status_code == 403
    assert post(served, photo, heads={'origin':served.local_url.rstrip('/')}, side=64).status_code == 200
    for fields in (dict(saturation=''), dict(saturation='null'), dict(side='\0'), dict(variant='\0'), dict(hints='\0'), dict(crop='\0')):
        res = post(served, photo, **fields)
        assert res.status_code == (200 if fields == dict(saturation='') else 422), (fields, res.text)
    url = f'{served.local_url}colorize'
    for kwargs in (dict(), dict(content=b'{'), dict(data=dict(photo='astronaut.jpg')), dict(files=dict(foto=b''))):
        assert httpx.post(url, timeout=60, **kwargs).status_code == 422
    assert httpx.post(url, files=dict(photo=('a\0/../b.jpg', b'')), timeout=60).status_code == 422
    assert httpx.post(url, files=dict(photo=b'x'), data=dict(hints='x'*2**20 + 'x'), timeout=60).status_code in (400, 413)
    assert 'Traceback' not in capfd.readouterr().err

def test_queue_is_full(colorizer, photos, monkeypatch):
    "One too many is told so, at once; those that wait get their colour; a small photo does not wait for large ones"
    hold,real = threading.Event(),orders.paint
    def slow(colorizer, photo, wishes, folder):
        if photo.size[0] > 2000: hold.wait(60)
        return real(colorizer, photo, wishes, folder)
    monkeypatch.setattr(orders, 'paint', slow)
    Image.new('L', (2100, 2000), 99).save(photos/'big.png')
    monkeypatch.setattr('fastai_colorize.app.service', lambda c,**kw: service.service(c, waiting=2, **kw))
    served = launch(colorizer, inline=False)
    try:
        with ThreadPoolExecutor(8) as ex:
            asked = [ex.submit(post, served, photos/'big.png', saturation=0) for _ in range(5)]
            refused = next(o for o in iter(lambda: next((o for o in asked if o.done()), None), 0) if o)
            assert refused.result().status_code == 503 and 'already; try again' in refused.result().json()['detail']
            assert refused.result().headers['retry-after'] == '60'
            assert post(served, photos/'chelsea.jpg', side=64).status_code == 200
            hold.set()
            assert sorted(o.result().status_code for o in asked) == [200]*4 + [503]
    finally:
        hold.set()
        served.close()

def test_behind_the_proxy_of_colab(colorizer, monkeypatch):
    "The browser's Origin is the proxy's name; Host is that name or, rewritten, this computer"
    proxy = '7860-m-s-abc.us-central1-0.prod.colab.dev'
    for colab in (False, True):
        if colab: monkeypatch.setitem(sys.modules, 'google.colab', types.ModuleType('google.colab'))
        served = launch(colorizer, inline=False)
        try:
            for heads in ({'origin':f'https://{proxy}'}, {'origin':f'https://{proxy}', 'host':proxy}, {'host':proxy}):
                assert httpx.get(served.local_url, headers=heads, timeout=60).status_code == (200 if colab else 403)
            assert httpx.get(served.local_url, headers={'origin':'https://evil.example'}, timeout=60).status_code == 403
        finally: served.close()

def test_shows_itself_in_colab(colorizer, monkeypatch):
    shown = []
    output = types.SimpleNamespace(serve_kernel_port_as_iframe=lambda port, **kw: shown.append(port))
    monkeypatch.setitem(sys.modules, 'google.colab', types.SimpleNamespace(output=output))
    served = launch(colorizer)
    served.close()
    assert shown == [served.server_port]

def test_share(colorizer, monkeypatch):
    "The tunnel gets the port, and its visitors are let in; without Gradio one sentence, and no page is left running"
    asked = []
    def tunnel(host, port, *rest): return asked.append((host, port)) or 'https://0123.gradio.live'
    monkeypatch.setitem(sys.modules, 'gradio', types.ModuleType('gradio'))
    monkeypatch.setitem(sys.modules, 'gradio.networking', types.SimpleNamespace(setup_tunnel=tunnel))
    served = launch(colorizer, share=True, inline=False)
    try:
        assert asked == [('127.0.0.1', served.server_port)] and served.share_url == 'https://0123.gradio.live'
        heads = {'host':'0123.gradio.live', 'origin':'https://0123.gradio.live'}
        assert httpx.get(served.local_url, headers=heads, timeout=60).status_code == 200
    finally: served.close()
    monkeypatch.setitem(sys.modules, 'gradio.networking', None)
    with pytest.raises(ImportError, match='pip install gradio'): launch(colorizer, share=True, inline=False, port=served.server_port)
    with pytest.raises(OSError): socket.create_connection(('127.0.0.1', served.server_port), 5)

def test_leftovers_of_a_killed_page(tmp_path):
    "The folder of a process that was killed is removed at the next start; that of a living one, of others, and of a moment ago stay"
    dead,alive,new,other = [tmp_path/f'{o}' for o in ('fastai_colorize_app_a', 'fastai_colorize_app_b', 'fastai_colorize_app_c', 'mine')]
    for o in (dead, alive, new, other):
        o.mkdir()
        (o/'photo.jpg').write_bytes(b'x')
    code = f'import time; from fastai_colorize.base.locks import lock_folder; lock_folder({str(alive)!r}); print(1, flush=True); time.sleep(60)'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    try:
        p.stdout.readline()
        for o in (dead, alive, other): os.utime(o, (1, 1))
        for o in sorted(tmp_path.glob(f'{service.PREFIX}*')): service.remove_dead(o)
    finally: p.kill()
    assert sorted(o.name for o in tmp_path.iterdir()) == ['fastai_colorize_app_b', 'fastai_colorize_app_c', 'mine']

def test_taken_port_and_missing_fastapi(served, colorizer, monkeypatch):
    with pytest.raises(OSError, match=str(served.server_port)): launch(colorizer, port=served.server_port, inline=False)
    monkeypatch.setitem(sys.modules, 'fastapi', None)
    with pytest.raises(ImportError, match='pip install'): launch(colorizer)

def test_preview_of_12_megapixels(served, tmp_path):
    "The first look at a large photo, and each stroke of the brush after it"
    Image.fromarray(data.astronaut()).convert('L').resize((4000, 3000)).save(tmp_path/'large.jpg', quality=60)
    begin = time.process_time()                                                      # others may be using these cores
    res = post(served, tmp_path/'large.jpg', 'prepare')
    first = time.process_time() - begin
    assert picture(res).size == (1024, 768) and res.headers['x-size'] == '4000x3000'
    (tmp_path/'small.jpg').write_bytes(res.content)
    hints = json.dumps(dict(size=[1024, 768], hints=[[300 + 9*i, 300, '#7a2a14', 9] for i in range(20)]))
    times = []
    for _ in range(3):
        begin = time.process_time()
        picture(post(served, tmp_path/'small.jpg', side=1024, hints=hints))
        times.append(time.process_time() - begin)
    print(f'prepared in {first:.2f} s of one core, a stroke in {min(times):.2f} s')
    assert first < 2 and min(times) < 2                                              # a second of two cores

# ---- what the page "The page and the service" says

def blocks(kind):
    "Its pieces of code"
    nb = json.loads((Path(__file__).parents[1]/'nbs'/'howto'/'service.ipynb').read_text(encoding='utf-8'))
    text = '\n'.join(''.join(o['source']) for o in nb['cells'] if o['cell_type'] == 'markdown')
    return re.findall(rf'```{kind}\n(.*?)```', text, flags=re.S)

def test_snippets(served, photos, tmp_path):
    "curl and Python get a photo back"
    grey = Image.open(photos/'astronaut.jpg')
    grey.save(tmp_path/'old.jpg')
    (tmp_path/'old.jpg.hints.json').write_text('{"size": [461, 512], "hints": [[9, 9, "#804020"]]}')
    here = lambda o: o.replace('http://127.0.0.1:8000/', served.local_url)
    asked = [(['sh', '-c', here(o)], o) for o in blocks('sh') if o.startswith('curl')]
    asked += [([sys.executable, '-c', here(o)], o) for o in blocks('python') if 'httpx' in o]
    assert len(asked) == 3
    for cmd,o in asked:
        if cmd[0] == 'sh' and not shutil.which('curl'): continue
        subprocess.run(cmd, cwd=tmp_path, check=True, timeout=120)
        res = Image.open(tmp_path/'old_coloured.jpg')
        assert res.size == ((461,512) if 'crop' in o else (512,512)) and ab(res) > 1
        (tmp_path/'old_coloured.jpg').unlink()

def test_service_of_ones_own(photos):
    "The recipe answers; four at a time give what one gives"
    code = next(o for o in blocks('python') if 'uvicorn' in o)
    port = socket.create_server(('127.0.0.1', 0))
    n = port.getsockname()[1]
    port.close()
    recipe = code.replace('8000', str(n))
    p = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', recipe], stderr=subprocess.PIPE, text=True, env={**os.environ, 'OMP_NUM_THREADS':'1'})
    try:
        next(o for o in p.stderr if 'running on' in o)
        mine = types.SimpleNamespace(local_url=f'http://127.0.0.1:{n}/')
        want = post(mine, photos/'chelsea.jpg', side=200).content
        with ThreadPoolExecutor(4) as ex: got = list(ex.map(lambda _: post(mine, photos/'chelsea.jpg', side=200).content, range(8)))
        assert got == [want]*8
    finally:
        p.terminate()
        p.wait(60)

def test_container_file():
    "Each file that is copied is there, the extras exist, and the command takes these options"
    from fastai_colorize.cli import parser
    root = Path(__file__).parents[1]
    lines = (root/'Dockerfile').read_text(encoding='utf-8').splitlines()
    ignored = (root/'.dockerignore').read_text(encoding='utf-8').split()
    assert ignored[0] == '*' and all((root/o[1:]).exists() for o in ignored[1:])
    extras = re.search(r"/src\[(.*?)\]", '\n'.join(lines))[1].split(',')
    assert all(f'\n{o}_requirements = ' in (root/'settings.ini').read_text() for o in extras)
    argv = [json.loads(o.partition(' ')[2]) for o in lines if o.startswith(('ENTRYPOINT', 'CMD'))]
    args = parser().parse_args([*argv[0][1:], *argv[1]])
    assert (args.port, args.host) == (7860, '0.0.0.0') and f'EXPOSE {args.port}' in lines
    for o in blocks('sh'):
        for line in o.splitlines():
            if line.startswith('fastai_colorize '): parser().parse_args(line.split()[1:])

# ---- a proxy in front

@pytest.fixture(scope='module')
def proxied(colorizer):
    "Pages at /colour of another server, which takes that path away, or leaves it"
    pages = [launch(colorizer, inline=False, names=['photos.localhost'], root_path='/colour') for _ in range(2)]
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            name,_,rest = self.path[1:].partition('/')
            path = f'/{rest}' if name == 'colour' else self.path.replace('kept', 'colour', 1)
            page = pages[0]
            inner = HTTPConnection('127.0.0.1', page.server_port, timeout=60)
            body = self.rfile.read(int(self.headers.get('content-length', 0)))
            heads = {k: v for k,v in self.headers.items() if k.lower() not in ('host', 'connection')}
            inner.request(self.command, path, body, heads)
            res = inner.getresponse()
            self.send_response(res.status)
            for k,v in res.getheaders():
                if k.lower() not in ('connection', 'transfer-encoding', 'server', 'date'): self.send_header(k, v)
            self.end_headers()
            self.wfile.write(res.read())
        do_POST = do_GET
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://photos.localhost:{server.server_port}'
    server.shutdown()
    server.server_close()
    for o in pages: o.close()

def test_root_path(proxied, photos):
    port = proxied.rpartition(':')[2]
    for where in ('colour', 'kept'):
        res = httpx.get(f'http://127.0.0.1:{port}/{where}/', timeout=60)
        assert res.status_code == 200 and '<base href="/colour/">' in res.text
        for o in ('page.js', 'facts', 'samples/china.jpg'): assert httpx.get(f'http://127.0.0.1:{port}/{where}/{o}', timeout=60).status_code == 200, (where, o)

# ---- in a browser

@pytest.fixture(scope='module')
def chromium():
    api = pytest.importorskip('playwright.sync_api', reason='needs a browser: pip install playwright')
    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if exe is None: pytest.skip('no Chromium on this machine')
    with api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=['--no-sandbox'])
        yield browser
        browser.close()

DESK,PHONE = dict(viewport=dict(width=1280, height=900)),dict(viewport=dict(width=390, height=844), is_mobile=True, has_touch=True, color_scheme='dark')

def opened(chromium, url, **kwargs):
    "A page; `asked` are the addresses that it requested, `errors` what its console said"
    page = chromium.new_context(**kwargs).new_page()
    page.set_default_timeout(WAIT)
    page.asked,page.errors = [],[]
    page.on('request', lambda r: page.asked.append(r.url))
    page.on('pageerror', lambda e: page.errors.append(str(e)))
    page.on('console', lambda m: page.errors.append(m.text) if m.type in ('error', 'warning') else None)
    page.goto(url, timeout=WAIT)
    page.locator('body[data-ready]').wait_for()
    return page

@pytest.fixture(params=[DESK, PHONE], ids=['desktop', 'phone'])
def page(request, chromium, served):
    page = opened(chromium, served.local_url, **request.param)
    yield page
    page.context.close()

@pytest.fixture
def desk(chromium, served):
    page = opened(chromium, served.local_url, **DESK)
    yield page
    page.context.close()

def ready(page): page.get_by_text('This is a preview').wait_for()
def drop(page, *files):
    page.locator('#files').set_input_files([str(f) for f in files])
    ready(page)

def shown(page, id='after'):
    "What a canvas of the page shows"
    url = page.evaluate(f"document.getElementById('{id}').toDataURL()")
    from base64 import b64decode
    return Image.open(io.BytesIO(b64decode(url.partition(',')[2])))

def settle(page, before):
    "Wait for another preview"
    end = time.monotonic() + WAIT/1000
    while time.monotonic() < end:
        page.wait_for_timeout(100)
        if shown(page).tobytes() != before.tobytes() and page.locator('#status').inner_text().startswith('This is a preview'): return shown(page)
    raise TimeoutError('the preview stays as it is')

def saved(page, name):
    with page.expect_download() as d: page.get_by_role('button', name=name).click()
    return d.value.suggested_filename,Path(d.value.path())

def test_browser_gets_colour(page, photos, served):
    drop(page, photos/'astronaut.jpg')
    name,file = saved(page, 'Download the coloured photo')
    got,grey = Image.open(file),Image.open(photos/'astronaut.jpg')
    assert name == 'astronaut_coloured.jpg' and got.size == grey.size and ab(grey) < .1 and ab(got) > 1
    assert ab(shown(page)) > 1 and ab(shown(page, 'before')) < .1
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')   # nothing to scroll sideways
    assert [u for u in page.asked if not u.startswith((served.local_url, 'blob:', 'data:'))] == []
    assert page.errors == []

def test_browser_follows_the_strength(page, photos):
    drop(page, photos/'chelsea.jpg')
    before = shown(page)
    page.get_by_label('Strength').press('Home')                                  # saturation 0
    end = time.monotonic() + WAIT/1000
    while ab(settle(page, before)) > .5 and time.monotonic() < end: pass
    assert ab(before) > 1 and ab(shown(page)) < .5

def test_browser_says_which_page(desk, photos, tmp_path):
    grey = Image.open(photos/'chelsea.jpg').resize((64,48))
    grey.save(tmp_path/'scan.tif', save_all=True, append_images=[grey, grey])
    drop(desk, tmp_path/'scan.tif')
    desk.get_by_text('scan.tif, 64 × 48 pixels, page 1 of 3').wait_for()
    name,_ = saved(desk, 'Download the coloured photo')
    desk.get_by_text('Downloaded. scan_coloured.tif: page 1 of 3').wait_for()
    desk.get_by_role('button', name='Remove this photo').click()
    desk.locator('#work').wait_for(state='hidden')

def test_browser_refuses_with_a_sentence(page, photos):
    files = page.locator('#files')
    files.set_input_files([str(photos/'letter.jpg'), str(photos/'large.png')])
    alert = page.get_by_role('alert')
    alert.get_by_text('letter.jpg: not an image').wait_for()
    alert.get_by_text('A photo may have 1 MB; this one is larger.').wait_for()
    assert page.locator('#work').is_hidden()
    with page.expect_file_chooser() as chooser: page.get_by_text('Choose photos').click()   # another try is possible
    chooser.value.set_files(str(photos/'astronaut.jpg'))
    ready(page)
    assert page.locator('#problems').is_hidden()

def test_browser_zip(desk, photos, tmp_path):
    "All photos in one file, with names that do not meet; one that fails does not stop the others"
    many = [tmp_path/o for o in ('ä 1.jpg', '2/ä 1.jpg', 'b.png')]
    for i,f in enumerate(many):
        f.parent.mkdir(exist_ok=True)
        Image.open(photos/'chelsea.jpg').resize((64 + i, 48)).save(f)
    drop(desk, *many)
    desk.get_by_role('button', name='Download all 3 as a ZIP').wait_for()
    name,file = saved(desk, 'Download all 3 as a ZIP')
    z = zipfile.ZipFile(file)
    assert name == 'coloured.zip' and z.namelist() == ['ä 1_coloured.jpg', 'ä 1_coloured_2.jpg', 'b_coloured.png'] and z.testzip() is None
    assert [Image.open(z.open(o)).size for o in z.namelist()] == [(64,48), (65,48), (66,48)]
    desk.get_by_role('group', name='Your photos').get_by_role('button', name='b.png').click()
    desk.get_by_text('b.png, 66 × 48 pixels').wait_for()

def test_browser_says_that_the_queue_is_full(desk, photos):
    full = '{"detail": "32 photos are waiting here already; try again in a minute."}'
    desk.route('**/colorize', lambda o: o.fulfill(status=503, content_type='application/json', body=full))
    desk.locator('#files').set_input_files(str(photos/'astronaut.jpg'))
    desk.get_by_text('32 photos are waiting').wait_for()

def test_samples_paste_and_drop(desk, photos, served):
    desk.get_by_role('button', name='coffee').click()
    desk.get_by_text('coffee.jpg, 600 × 400 pixels').wait_for()
    ready(desk)
    give = '''([kind, bytes]) => {
        const dt = new DataTransfer();
        dt.items.add(new File([new Uint8Array(bytes)], kind === 'paste' ? 'image.png' : 'drop.jpg'));
        const e = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: dt, bubbles: true}) : new DragEvent('drop', {dataTransfer: dt, bubbles: true});
        document.body.dispatchEvent(e);
    }'''
    for kind,name in (('paste', 'image.png'), ('drop', 'drop.jpg')):
        desk.evaluate(give, [kind, list((photos/'chelsea.jpg').read_bytes())])
        desk.get_by_text(f'{name}, 451 × 300 pixels').wait_for()
    assert desk.errors == []

def stroke(page, x, y):
    "Draw a little at a part of the photo's width and height"
    box = page.locator('#strokes').bounding_box()
    at = lambda dx: (box['x'] + box['width']*(x + dx), box['y'] + box['height']*y)
    page.mouse.move(*at(0))
    page.mouse.down()
    page.mouse.move(*at(.05), steps=4)
    page.mouse.up()

def test_brush(page, photos, tmp_path):
    "A stroke asks for a colour of the place, the colour holds there; eraser, undo, save and load"
    page.get_by_role('button', name='coffee').click()
    ready(page)
    plain = shown(page)
    page.get_by_label('Brush', exact=True).check()
    stroke(page, .25, .72)
    page.locator('#swatches button').nth(3).wait_for()
    page.locator('#colour').evaluate("o => { o.value = '#8a1f14'; o.dispatchEvent(new Event('change')); }")
    def red(im): return float(np.subtract(*np.asarray(im.convert('RGB'))[280:296,155:170].reshape(-1, 3).mean(0)[[0,2]]))
    end = time.monotonic() + WAIT/1000
    while red(shown(page)) < red(plain) + 15 and time.monotonic() < end: page.wait_for_timeout(100)
    assert red(shown(page)) > red(plain) + 15
    ready(page)
    name,file = saved(page, 'Save strokes')
    held = json.loads(file.read_text())
    assert name == 'coffee.jpg.hints.json' and held['size'] == [600,400] and {o[2] for o in held['hints']} == {'#8a1f14'}
    assert all(140 <= x <= 190 and 280 <= y <= 296 for x,y,*_ in held['hints'])
    page.get_by_label('Eraser').check()
    painted = shown(page)
    stroke(page, .25, .72)
    assert red(settle(page, painted)) < red(plain) + 5 and page.get_by_role('button', name='Save strokes').is_disabled()
    page.keyboard.press('Control+z')
    assert np.array_equal(settle(page, plain), painted)
    page.get_by_role('button', name='Remove all strokes').click()
    settle(page, painted)
    (tmp_path/'mine.json').write_text(json.dumps(held))
    page.locator('#load').set_input_files(str(tmp_path/'mine.json'))
    assert red(settle(page, plain)) > red(plain) + 15
    for bad,words in (('{', 'it is no JSON'), ('{"size": [10, 90], "hints": []}', 'for a photo of 10'), ('[[1, "x"]]', 'holds no strokes')):
        (tmp_path/'bad.json').write_text(bad)
        page.locator('#load').set_input_files(str(tmp_path/'bad.json'))
        page.get_by_role('alert').get_by_text(words).wait_for()
    assert page.errors == []

def test_variants_and_scan(desk, photos):
    "A variant is picked, and downloaded; a scan is turned and cropped, and what was drawn stays where it is"
    drop(desk, photos/'chelsea.jpg')
    plain = shown(desk)
    desk.get_by_role('button', name='Show other answers').click()
    desk.get_by_role('button', name='larger view').wait_for()
    warmer = desk.get_by_role('button', name='warmer')
    warmer.click()
    b = lambda im: rgb2lab(np.asarray(im.convert('RGB')))[...,2].mean()
    warm = settle(desk, plain)
    assert b(warm) > b(plain) + 3 and desk.get_by_role('button', name='warmer').get_attribute('aria-pressed') == 'true'
    _,file = saved(desk, 'Download the coloured photo')
    assert abs(b(Image.open(file)) - b(warm)) < 1
    desk.get_by_text('A scan: crop').click()
    desk.get_by_label('Crop left').fill('0.2')
    cropped = settle(desk, warm)
    assert cropped.size == (361,300)
    desk.get_by_label('Turn').fill('10')
    turned = settle(desk, cropped)
    assert turned.size[1] < 300
    desk.get_by_label('More contrast').check()
    settle(desk, turned)
    desk.get_by_role('button', name='See a part at full size').click()
    desk.get_by_text('A part from the middle').wait_for()
    _,file = saved(desk, 'Download the coloured photo')
    assert abs(np.subtract(Image.open(file).size, turned.size)).max() <= 1
    assert desk.errors == []

def test_keyboard(desk, photos):
    "Everything is reached by Tab, the comparison and the brush too"
    drop(desk, photos/'chelsea.jpg')
    seen = []
    desk.locator('#files').focus()
    for _ in range(40):
        desk.keyboard.press('Tab')
        seen.append(desk.evaluate("[document.activeElement.id, document.activeElement.value]"))
        if seen[-1][0] == 'compare': break
    desk.keyboard.press('ArrowRight')
    assert desk.locator('#compare').input_value() == '51' and 'inset(0px 49%' in desk.locator('#before').get_attribute('style')
    desk.get_by_label('Brush', exact=True).check()
    desk.locator('#strokes').focus()
    before = shown(desk)
    for o in ('ArrowLeft', 'ArrowUp', 'Enter'): desk.keyboard.press(o)
    assert desk.locator('#cross').is_visible()
    desk.locator('#swatches button').nth(2).focus()
    desk.keyboard.press('Enter')
    settle(desk, before)
    assert desk.get_by_role('button', name='Undo').is_enabled()

@pytest.mark.parametrize('look', [DESK, {**DESK, 'color_scheme':'dark'}, PHONE], ids=['light', 'dark', 'phone'])
def test_accessible(chromium, served, photos, look):
    "axe-core finds nothing, in any state of the page"
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='pip install axe-playwright-python').Axe()
    page = opened(chromium, served.local_url, bypass_csp=True, **look)
    def check(state):
        found = [(o['id'], o['impact'], [n['html'][:90] for n in o['nodes']]) for o in axe.run(page).response['violations']]
        assert found == [], state
    try:
        check('start')
        page.locator('#files').set_input_files([str(photos/'letter.jpg')])
        page.get_by_role('alert').get_by_text('not an image').wait_for()
        check('problem')
        drop(page, photos/'chelsea.jpg', photos/'astronaut.jpg')
        page.get_by_role('button', name='Show other answers').click()
        page.get_by_role('button', name='larger view').wait_for()
        page.get_by_label('Brush', exact=True).check()
        stroke(page, .3, .5)
        page.locator('#swatches button').nth(2).wait_for()
        page.locator('summary').click()
        check('everything open')
        assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    finally: page.context.close()

def test_browser_behind_a_proxy(chromium, proxied, photos):
    page = opened(chromium, f'{proxied}/colour', **DESK)                         # without a stroke at its end
    drop(page, photos/'chelsea.jpg')
    assert ab(shown(page)) > 1 and page.errors == []
    assert all(o.startswith((f'{proxied}/colour', 'blob:', 'data:')) for o in page.asked)
    page.context.close()
