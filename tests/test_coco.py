"`coco` against a local server that fails, stalls, drips, truncates and lies; against Ctrl-C, full disks and bad annotation files"
import errno, hashlib, io, json, os, random, signal, socket, subprocess, sys, threading, time, zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from fastai_colorize.base import files
from fastai_colorize.data import answers, coco, downloads
from fastai_colorize.data.coco import coco_annotations, coco_subset, pick_coco
from fastai_colorize.data.downloads import DownloadError

CATS = {1: 'person', 3: 'car', 17: 'cat', 18: 'dog'}

class Site(BaseHTTPRequestHandler):
    "Serves `files` by the last part of the path; `plan[name]` lists what it does on each request, the last entry for ever"
    def do_GET(self):
        srv,name = self.server,self.path.rpartition('/')[2]
        with srv.lock:
            srv.hits[name] += 1
            plan = srv.plan.get(name, ['ok'])
            do = plan.pop(0) if len(plan) > 1 else plan[0]
        if callable(do): do = do() or 'ok'
        body = srv.files.get(name, b'')
        if isinstance(do, bytes): body,do = do,'ok'
        if isinstance(do, int): return self.send_error(do)
        if do == 'reset': return self.connection.close()
        if do == 'redirect':
            self.send_response(302)
            self.send_header('Location', '/elsewhere/' + name)
            return self.end_headers()
        if isinstance(do, str) and ':' in do:                            # a redirect to that address
            self.send_response(302)
            self.send_header('Location', do)
            return self.end_headers()
        if do == 'drip header':
            while not srv.over.wait(0.05): self.wfile.write(b'H')
            return
        self.send_response(200)
        if do != 'no length': self.send_header('Content-Length', str(10**15 if do == 'boast' else len(body)))
        self.end_headers()
        if do == 'drip':
            for b in body:
                if srv.over.wait(0.05): return
                self.wfile.write(bytes([b]))
        self.wfile.write(body if do in ('ok', 'no length') else body[:len(body)//2])
        if do == 'stall':
            self.wfile.flush()
            srv.over.wait(30)
    def log_message(self, *args): pass

class Server(ThreadingHTTPServer):
    daemon_threads,request_queue_size = True,128
    def handle_error(self, request, client_address): assert isinstance(sys.exc_info()[1], OSError)   # the client hung up

def jpeg(seed, size=(48,36)):
    x = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    with io.BytesIO() as f:
        Image.fromarray(x).save(f, 'JPEG')
        return f.getvalue()

@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(answers, '_PAUSE', 0.01)
    srv = Server(('127.0.0.1', 0), Site)
    srv.files,srv.plan,srv.hits,srv.lock,srv.over = {},{},Counter(),threading.Lock(),threading.Event()
    srv.url = f'http://127.0.0.1:{srv.server_port}'
    threading.Thread(target=srv.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
    yield srv
    srv.over.set()
    srv.shutdown()
    srv.server_close()

def annotate(path, url, n, **changes):
    "A COCO file of `n` pictures of growing size; picture i shows the i-th category, modulo"
    images = [dict(id=100 + 7*i, file_name=f'{i:012d}.jpg', coco_url=f'{url}/val/{i:012d}.jpg', width=48 + i, height=36) for i in range(n)]
    anns = [dict(id=i, image_id=o['id'], category_id=[*CATS][i % len(CATS)]) for i,o in enumerate(images)]
    d = dict(images=images, annotations=anns, categories=[dict(id=i, name=o) for i,o in CATS.items()])
    path.write_text(json.dumps({**d, **changes}))
    return path

@pytest.fixture
def ann(server, tmp_path):
    server.files = {f'{i:012d}.jpg': jpeg(i, (48 + i, 36)) for i in range(12)}
    return annotate(tmp_path/'instances_val.json', server.url, 12)

def name(i): return f'{i:012d}.jpg'
def listing(folder): return sorted(p.name for p in folder.iterdir())
def whole(folder, server):
    "Every file in `folder` is one of the server's, bit by bit"
    for p in folder.iterdir(): assert p.read_bytes() == server.files[p.name]
    return listing(folder)

# ---- picking

def test_pick_ignores_the_order_of_the_file(tmp_path):
    ann = annotate(tmp_path/'a.json', 'http://x', 200)
    d = json.loads(ann.read_text())
    for o in d.values(): random.Random(1).shuffle(o)
    (tmp_path/'b.json').write_text(json.dumps(d))
    a = pick_coco(ann, 50)
    assert a == pick_coco(tmp_path/'b.json', 50)
    assert pick_coco(ann, 80)[:50] == a
    other = pick_coco(ann, 50, seed=1)
    assert {*other.itemgot('id')} != {*a.itemgot('id')}
    ids = np.array(sorted(pick_coco(ann).itemgot('id')))
    assert (ids == 100 + 7*np.arange(200)).all()

def test_pick_is_the_same_on_every_machine(tmp_path):
    "Frozen, so that a published seed keeps its meaning"
    got = pick_coco(annotate(tmp_path/'a.json', 'http://x', 200), 5).itemgot('id')
    assert got == sorted(range(100, 1500, 7), key=lambda i: hashlib.sha256(f'42/{i}'.encode()).hexdigest())[:5] == [1010, 380, 499, 821, 443]

def test_pick_is_fair(tmp_path):
    "Each picture is chosen about as often as any other"
    ann = annotate(tmp_path/'a.json', 'http://x', 40)
    times = Counter(i for s in range(100) for i in pick_coco(ann, 20, seed=s).itemgot('id'))
    assert len(times) == 40 and 30 < min(times.values()) and max(times.values()) < 70

def test_pick_categories_and_size(tmp_path):
    ann = annotate(tmp_path/'a.json', 'http://x', 20)
    nums = lambda **kw: sorted((i - 100)//7 for i in pick_coco(ann, **kw).itemgot('id'))
    assert nums(categories='cat') == [2, 6, 10, 14, 18]
    assert nums(categories=['cat', 'person']) == sorted([2, 6, 10, 14, 18, 0, 4, 8, 12, 16])
    assert nums(categories=('cat',), n=5) == nums(categories='cat')
    assert nums(min_size=36) == [*range(20)]
    with pytest.raises(ValueError, match=r"has 0 pictures with categories=None and min_size=37"): nums(min_size=37)
    with pytest.raises(ValueError, match=r"has 5 pictures with categories='cat' and min_size=0; n=6"): nums(categories='cat', n=6)
    with pytest.raises(ValueError, match=r"n=0 cannot"): nums(n=0)
    with pytest.raises(ValueError, match=r"no category 'cats'\. Did you mean 'cat'"): nums(categories=['dog', 'cats'])
    with pytest.raises(ValueError, match=r"no category 'zebra'\. It has: car, cat, dog, person\."): nums(categories='zebra')
    images = json.loads(ann.read_text())['images']
    images[3].update(width=30)
    assert len(pick_coco(annotate(tmp_path/'c.json', 'http://x', 20, images=images), min_size=36)) == 19
    with pytest.raises(ValueError, match='It has: none'): pick_coco(annotate(tmp_path/'d.json', 'http://x', 2, categories=[], annotations=[]), categories='cat')

def test_two_categories_of_one_name(tmp_path):
    ann = annotate(tmp_path/'a.json', 'http://x', 8, categories=[dict(id=i, name='thing' if i < 4 else o) for i,o in CATS.items()])
    assert sorted((i - 100)//7 for i in pick_coco(ann, categories='thing').itemgot('id')) == [0, 1, 4, 5]

def test_pick_is_silent(tmp_path, capfd):
    pick_coco(annotate(tmp_path/'a.json', 'http://x', 3))
    assert capfd.readouterr() == ('', '')

@pytest.mark.parametrize('text,says', [
    ('', 'Expecting value'), ('not json', 'Expecting value'), ('[1, 2]', 'not supported'), ('{}', 'no "images"'), ('{"images": 3}', 'not iterable'),
    ('{"images": [{"file_name": "a.jpg"}]}', "'id'"), ('{"images": {"a": 1}}', 'indices'), ('{"images": [7]}', 'subscriptable'),
    ('{"images": [{"id": 5, "file_name": "a.jpg", "width": "48"}]}', 'image 5 has no valid coco_url, width, height'),
    ('{"images": [{"id": 1}], "annotations": [{}], "categories": []}', "'image_id'")])
def test_not_coco(tmp_path, text, says):
    p = tmp_path/'a.json'
    p.write_text(text)
    with pytest.raises(ValueError, match=r'a\.json is not a COCO annotation file: ') as e: coco_subset(p, tmp_path/'out')
    assert says in str(e.value) and '\n' not in str(e.value)
    assert not (tmp_path/'out').exists()

def test_not_a_text_file(tmp_path):
    (tmp_path/'a.json').write_bytes(jpeg(0))
    with pytest.raises(ValueError, match='is not a COCO annotation file'): pick_coco(tmp_path/'a.json')
    for p in tmp_path/'none.json', tmp_path:
        with pytest.raises(FileNotFoundError, match='no annotation file'): pick_coco(p)

@pytest.mark.parametrize('change', [dict(coco_url='file:///etc/passwd'), dict(coco_url='x.jpg'), dict(file_name='..'), dict(file_name='')])
def test_hostile_entries(tmp_path, change):
    images = json.loads(annotate(tmp_path/'a.json', 'http://x', 1).read_text())['images']
    images[0].update(change)
    with pytest.raises(ValueError, match='Image 100: .* is not '): coco_subset(annotate(tmp_path/'a.json', '', 1, images=images), tmp_path/'out')
    assert not (tmp_path/'out').exists()

def test_names_stay_in_the_folder_and_are_not_shared(server, ann, tmp_path):
    images = json.loads(ann.read_text())['images'][:2]
    images[0]['file_name'] = '../../up/' + images[0]['file_name']
    annotate(ann, '', 2, images=images)
    assert coco_subset(ann, tmp_path/'deep/out') == [tmp_path/'deep/out'/name(i) for i in range(2)]
    images[1]['file_name'] = 'x/' + name(0)
    with pytest.raises(ValueError, match='share a file name'): coco_subset(annotate(ann, '', 2, images=images), tmp_path/'out')

# ---- fetching

def test_fetch_resume_and_grow(server, ann, tmp_path):
    out = tmp_path/'new/out'
    five = coco_subset(ann, out, n=5)
    assert five == sorted(five) and [p.name for p in five] == whole(out, server) and len(five) == 5
    assert server.hits == Counter([p.name for p in five])
    assert coco_subset(ann, out, n=5) == five and server.hits.total() == 5
    assert len(coco_subset(ann, out)) == 12 and server.hits == Counter(server.files.keys())

def test_mirror(server, ann, tmp_path):
    annotate(ann, 'http://images.invalid', 3)
    assert len(coco_subset(ann, tmp_path/'out', base_url=server.url + '/coco/')) == 3
    assert whole(tmp_path/'out', server) == [name(i) for i in range(3)]

def test_odd_names(server, tmp_path):
    images = [dict(id=1, file_name='Zürich am See.jpg', coco_url=server.url + '/x/Zürich am See.jpg', width=48, height=36)]
    server.files['Z%C3%BCrich%20am%20See.jpg'] = jpeg(0)
    assert coco_subset(annotate(tmp_path/'a.json', '', 1, images=images), tmp_path/'out') == [tmp_path/'out/Zürich am See.jpg']

@pytest.mark.parametrize('first', [500, 503, 429, 'reset', 'stall', 'short', jpeg(0)[:-300], jpeg(0)[:-2], b'<!DOCTYPE html><p>Please log in', b'', jpeg(0, (47,36))],
    ids='500 503 429 reset stall short cut-jpeg no-end html empty other-size'.split())
def test_heals(server, ann, tmp_path, first):
    server.plan[name(0)] = [first, 'ok']
    paths = coco_subset(ann, tmp_path/'out', timeout=0.4)
    assert len(paths) == 12 and len(whole(tmp_path/'out', server)) == 12
    assert server.hits[name(0)] == 2 and server.hits.total() == 13

def test_redirect_and_no_length(server, ann, tmp_path):
    server.plan = {name(0): ['redirect', 'ok'], name(1): ['no length']}
    assert len(coco_subset(ann, tmp_path/'out')) == 12 and len(whole(tmp_path/'out', server)) == 12

@pytest.mark.parametrize('fault,says,tries', [
    (404, 'HTTP 404 Not Found', 1), (403, 'HTTP 403 Forbidden', 1), (500, 'HTTP 500 Internal Server Error', 3), ('reset', 'Remote end closed|reset', 3),
    ('stall', 'server silent for 0.3 s', 3), ('drip', 'was not finished by the deadline', 1), ('drip header', 'was not finished by the deadline', 1),
    ('short', 'ends before its Content-Length', 3), (jpeg(0)[:-300], 'is a broken picture', 3), (jpeg(0, (47,36)), 'has 47×36 pixels where the annotation says 48×36', 3),
    (b'<html><body>Not here', "is not a picture, it begins with b'<html><bo'", 3), (b'', "is not a picture, it begins with b''", 3),
    (bytes(100_000), r'is larger than 79,360 bytes', 3)],
    ids='404 403 500 reset stall drip drip-header short cut-jpeg other-size html empty huge'.split())
def test_fails_for_ever(server, ann, tmp_path, fault, says, tries):
    server.plan[name(0)] = [fault]
    t = time.monotonic()
    with pytest.raises(DownloadError, match=rf'^1 of 12 pictures could not be downloaded: 1 × .*{says}') as e:
        coco_subset(ann, tmp_path/'out', timeout=0.3, deadline=1.2, retries=2)
    assert time.monotonic() - t < 5
    assert '11 are whole and stay: run again to fetch only the missing ones.' in str(e.value) and '\n' not in str(e.value)
    assert e.value.paths == [tmp_path/'out'/name(i) for i in range(1, 12)] and [*e.value.failed] == [name(0)]
    assert whole(tmp_path/'out', server) == [name(i) for i in range(1, 12)]
    assert server.hits[name(0)] == tries
    server.plan.clear()
    server.hits.clear()
    assert len(coco_subset(ann, tmp_path/'out')) == 12 and server.hits == {name(0): 1}

def test_reasons_are_counted(server, ann, tmp_path):
    server.plan = {**{name(i): [404] for i in range(4)}, name(7): [410]}
    with pytest.raises(DownloadError) as e: coco_subset(ann, tmp_path/'out')
    assert str(e.value).startswith(f'5 of 12 pictures could not be downloaded: 4 × HTTP 404 Not Found ({name(0)}, {name(1)}, {name(2)}, …); 1 × HTTP 410 Gone ({name(7)}). 7 are whole')

def test_a_dead_server_is_given_up(server, tmp_path):
    server.plan = {name(i): [503] for i in range(400)}
    with pytest.raises(DownloadError, match='^30 of 400 .* After 30 failures in a row the last 370 were given up. 0 are whole') as e:
        coco_subset(annotate(tmp_path/'a.json', server.url, 400), tmp_path/'out', retries=1)
    assert len(e.value.failed) == 400 and server.hits.total() < 2*(30 + 8) + 1 and not listing(tmp_path/'out')
    server.plan = {name(i): [404] for i in range(399)}   # a server that answers is asked for everything
    server.files[name(399)] = jpeg(0, (48 + 399, 36))
    with pytest.raises(DownloadError, match='^399 of 400 .*: 399 × HTTP 404'): coco_subset(tmp_path/'a.json', tmp_path/'out', workers=32)

def test_one_success_is_a_sign_of_life(server, tmp_path):
    ann = annotate(tmp_path/'a.json', server.url, 50)
    order = [Path(o).name for o in pick_coco(ann).itemgot('file_name')]
    server.plan = {n: [503] for n in order if n != order[25]}
    server.files = {order[25]: jpeg(0, (48 + int(order[25][:12]), 36))}
    with pytest.raises(DownloadError, match='^49 of 50'): coco_subset(ann, tmp_path/'out', retries=0, workers=1)

def test_nobody_listens(ann, tmp_path, server):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))   # bound, not listening
        with pytest.raises(DownloadError, match='12 × .*refused'):
            coco_subset(ann, tmp_path/'out', base_url=f'http://127.0.0.1:{s.getsockname()[1]}')

@pytest.mark.parametrize('damage', [b'', b'<html>', jpeg(3, (51,36))[:-200], jpeg(3, (36,51))], ids='empty html cut other-size'.split())
def test_damaged_file_is_replaced(server, ann, tmp_path, damage):
    coco_subset(ann, tmp_path)
    (tmp_path/name(3)).write_bytes(damage)
    server.hits.clear()
    coco_subset(ann, tmp_path)
    assert server.hits == {name(3): 1} and (tmp_path/name(3)).read_bytes() == server.files[name(3)]

def test_arguments(ann, tmp_path):
    with pytest.raises(ValueError, match='workers must be at least 1'): coco_subset(ann, tmp_path/'out', workers=0)
    with pytest.raises(ValueError, match='retries must not be negative'): coco_subset(ann, tmp_path/'out', retries=-1)

# ---- interruption and the disk

def ctrl_c(): signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

def test_interrupt_then_resume(server, ann, tmp_path):
    "Ctrl-C while one file stalls and others come: prompt, nothing half, and the second run fetches only the rest"
    out,order = tmp_path/'out',[Path(o).name for o in pick_coco(ann).itemgot('file_name')]
    server.plan = {order[0]: ['stall'], order[7]: [ctrl_c]}
    t = time.monotonic()
    with pytest.raises(KeyboardInterrupt): coco_subset(ann, out, workers=2, timeout=0.5)
    assert time.monotonic() - t < 5
    have = whole(out, server)
    assert {*order[1:7]} <= {*have} <= {*order[1:8]}
    server.plan.clear()
    server.hits.clear()
    time.sleep(0.8)
    assert whole(out, server) == have and not server.hits   # no thread tries again in secret
    assert len(coco_subset(ann, out)) == 12 and len(whole(out, server)) == 12
    assert server.hits == Counter(n for n in server.files if n not in have)

def test_leftovers_of_a_killed_download(server, ann, tmp_path):
    code = ('import os\nfrom fastai_colorize.base.files import writing\n'
            f"with writing({str(tmp_path/'out'/'a.jpg')!r}) as p:\n    p.touch()\n    os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, '-c', code])
    assert len(list((tmp_path/'out').iterdir())) == 1
    coco_subset(ann, tmp_path/'out')
    assert len(whole(tmp_path/'out', server)) == 12 == len(list((tmp_path/'out').iterdir()))

@pytest.mark.parametrize('where', ['_sync_file', 'replace'])
def test_interrupt_in_the_middle_of_writing(server, ann, tmp_path, monkeypatch, where):
    "Before the bytes are safe on the disk, and before they have their name"
    room,calls = files if where == '_sync_file' else os,[]
    real = getattr(room, where)
    def third(*args):
        calls.append(args)
        if len(calls) == 3: raise KeyboardInterrupt
        return real(*args)
    with monkeypatch.context() as m:
        m.setattr(room, where, third)
        with pytest.raises(KeyboardInterrupt): coco_subset(ann, tmp_path/'out')
    assert len(whole(tmp_path/'out', server)) == 2
    server.hits.clear()
    assert len(coco_subset(ann, tmp_path/'out')) == 12 and server.hits.total() >= 10

def test_interrupted_process(server, ann, tmp_path):
    "A real Ctrl-C on a real process"
    out = tmp_path/'out'
    asked = threading.Event()
    last = pick_coco(ann)[8]['file_name']
    server.plan = {last: [lambda: asked.set() or 'stall']}
    code = f'from fastai_colorize.data.coco import coco_subset; coco_subset({str(ann)!r}, {str(out)!r}, workers=1)'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    assert asked.wait(30)
    time.sleep(0.2)
    p.send_signal(signal.SIGINT)
    _,err = p.communicate(timeout=5)
    assert p.returncode != 0 and 'KeyboardInterrupt' in err
    assert len(whole(out, server)) == 8

def test_full_disk(server, ann, tmp_path, monkeypatch):
    calls = []
    def full(src, dst):
        calls.append(dst)
        if len(calls) > 4: raise OSError(errno.ENOSPC, 'No space left on device')
        real(src, dst)
    real = os.replace
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match=r'\.jpg cannot be written: No space left on device\. Finished files stay'): coco_subset(ann, tmp_path/'out')
    assert len(whole(tmp_path/'out', server)) == 4 and len(calls) == 5

def test_folder_that_cannot_be_written(server, ann, tmp_path):
    for dest in ann, ann/'sub', Path('/proc/nothing/here'):
        with pytest.raises(OSError, match='Cannot write into the folder'): coco_subset(ann, dest)
        with pytest.raises(OSError, match='Cannot write into the folder'): coco_annotations(dest, url=server.url + '/a.zip')
    if os.geteuid():   # root may write everywhere
        (tmp_path/'locked').mkdir(mode=0o500)
        with pytest.raises(OSError, match='Cannot write into the folder .* Permission denied'): coco_subset(ann, tmp_path/'locked')
    assert not server.hits

# ---- bytes of strangers

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 36\n%%EndComments\n(x) print\nshowpage\n%%EOF\n"

@pytest.mark.skipif(os.name == 'nt', reason='a script as a program')
def test_no_ghostscript(server, ann, tmp_path, monkeypatch):
    "A picture that is a program for Ghostscript, which Pillow would start; a `gs` that leaves a trace"
    (tmp_path/'bin').mkdir()
    gs = tmp_path/'bin'/'gs'
    gs.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\n')
    gs.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}/bin', prepend=os.pathsep)
    from PIL import EpsImagePlugin
    monkeypatch.setattr(EpsImagePlugin, 'gs_binary', None)               # look for it again
    with pytest.raises(Exception): Image.open(io.BytesIO(EPS)).load()
    assert (tmp_path/'started').exists()                                 # so the trap works
    (tmp_path/'started').unlink()
    server.plan[name(0)] = [EPS]
    with pytest.raises(DownloadError, match="is not a picture, it begins with b'%!PS-Adob'"): coco_subset(ann, tmp_path/'out', retries=0)
    assert not (tmp_path/'started').exists() and len(whole(tmp_path/'out', server)) == 11

def test_image_open_has_one_address():
    "`Image.open` tries every format there is; pictures of strangers are opened by `base.headers`, by its list"
    root = Path(coco.__file__).parent.parent
    assert [str(f) for f in root.rglob('*.py') if 'Image.open(' in f.read_text(encoding='utf-8')] == []

@pytest.mark.parametrize('where', ['file:///etc/hostname', 'ftp://127.0.0.1/x.jpg', 'data:image/png;base64,AAAA'])
def test_redirects_to_http_only(server, ann, zipped, tmp_path, where):
    server.plan = {name(0): [where], 'ann.zip': [where]}
    with pytest.raises(DownloadError, match='(not an http address|is not allowed)') as e: coco_subset(ann, tmp_path/'out')
    assert where.partition(':')[0] in str(e.value) and '\n' not in str(e.value) and server.hits[name(0)] == 1
    with pytest.raises(DownloadError, match='(not an http address|is not allowed)'): coco_annotations(tmp_path/'a', url=zipped)
    assert not listing(tmp_path/'a')

def test_no_other_address(server, tmp_path):
    (tmp_path/'secret').write_text('x')
    for o in (tmp_path/'secret').as_uri(), 'ftp://127.0.0.1/x', 'data:,x', '/etc/hostname', '':
        with pytest.raises(DownloadError, match='is not an http address'): downloads.download_file(o, tmp_path/'got')
    with pytest.raises(Exception, match='redirected from https'): answers._checked('http://a/b', 'https://a/b')
    assert answers._checked('https://a/b', 'http://a/b') == 'https://a/b' and not (tmp_path/'got').exists()

def test_redirects_end(server, ann, tmp_path):
    server.plan[name(0)] = [server.url + '/' + name(0)]
    with pytest.raises(DownloadError, match='redirect'): coco_subset(ann, tmp_path/'out')
    assert server.hits[name(0)] < 12

def test_a_length_beyond_bounds(server, ann, tmp_path):
    "Refused by what is announced, before it comes; and what is announced may itself be a lie"
    server.plan = {name(0): ['boast'], 'x.zip': ['boast']}
    with pytest.raises(DownloadError, match='is larger than 79,360 bytes'): coco_subset(ann, tmp_path/'out', retries=0)
    with pytest.raises(DownloadError, match='is larger than 1,073,741,824 bytes'): downloads.download_file(server.url + '/x.zip', tmp_path/'x.zip', retries=0)
    images = json.loads(ann.read_text())['images']
    for w in 0, -3, 10**7, 10**30:
        images[0].update(width=w)
        with pytest.raises(ValueError, match=f'image 100 has {w}×36 pixels'): coco_subset(annotate(ann, '', 1, images=images), tmp_path/'o')

@pytest.mark.parametrize('what', ['drip header', 'drip'])
def test_one_file_keeps_its_deadline(server, tmp_path, what):
    server.plan['x.zip'],server.files['x.zip'] = [what],bytes(1000)
    t = time.monotonic()
    with pytest.raises(DownloadError, match='deadline'): downloads.download_file(server.url + '/x.zip', tmp_path/'x.zip', deadline=.6)
    assert time.monotonic() - t < 3 and not listing(tmp_path)

@pytest.mark.parametrize('bad', ['a\0b.jpg', 'ä'*130 + '.jpg', 'a\nb.jpg', 'a\ud800b.jpg'], ids=['NUL', 'long', 'newline', 'surrogate'])
def test_one_bad_name_stops_nothing(server, ann, tmp_path, bad):
    images = json.loads(ann.read_text())['images']
    images[0]['file_name'] = bad
    with pytest.raises(DownloadError, match='^1 of 12 .* has a name that no file can have') as e: coco_subset(annotate(ann, '', 12, images=images), tmp_path/'out')
    assert len(whole(tmp_path/'out', server)) == 11 and len(e.value.paths) == 11

# ---- the annotation zip

@pytest.fixture
def zipped(server):
    with io.BytesIO() as f:
        with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z:
            z.writestr('../../../evil.json', 'evil')
            z.writestr('/tmp/instances_evil.json', 'evil')
            z.writestr('annotations/captions_val2017.json', '{"a": 1}')
            for s in 'val2017','train2017': z.writestr(f'annotations/instances_{s}.json', json.dumps({'split': s, 'x': [*range(30_000)]}))
        server.files['ann.zip'] = f.getvalue()
    return server.url + '/annotations/ann.zip'

def test_annotations(server, zipped, tmp_path):
    out = tmp_path/'a/b'
    p = coco_annotations(out, url=zipped)
    assert p == out/'instances_val2017.json' and json.loads(p.read_text())['split'] == 'val2017'
    assert listing(out) == ['ann.zip', 'instances_val2017.json'] and listing(tmp_path) == ['a']
    assert coco_annotations(out, 'val2017', zipped) == p
    assert json.loads(coco_annotations(out, 'train2017', zipped).read_text())['split'] == 'train2017'
    assert server.hits == {'ann.zip': 1}
    (out/'ann.zip').unlink()
    assert coco_annotations(out, url=zipped) == p and server.hits == {'ann.zip': 1}

def test_annotations_in_pieces(server, zipped, tmp_path, monkeypatch):
    for o in (answers, downloads): monkeypatch.setattr(o, 'PIECE', 1000)
    coco_annotations(tmp_path, url=zipped)
    assert (tmp_path/'ann.zip').read_bytes() == server.files['ann.zip']
    server.plan['ann.zip'] = ['no length']
    coco_annotations(tmp_path/'2', url=zipped)
    assert (tmp_path/'2/ann.zip').read_bytes() == server.files['ann.zip']

def test_a_hostile_member_lands_under_our_name(server, zipped, tmp_path):
    assert coco_annotations(tmp_path/'out', 'evil', zipped) == tmp_path/'out/instances_evil.json'
    assert not Path('/tmp/instances_evil.json').exists()
    for s in '../x', '/x', 'a/b':
        with pytest.raises(ValueError, match='not the name of a split'): coco_annotations(tmp_path, s, zipped)

def test_annotations_split_missing(zipped, tmp_path):
    with pytest.raises(ValueError, match=r'ann\.zip has no instances_val2014\.json, only .*instances_train2017\.json'): coco_annotations(tmp_path, 'val2014', zipped)
    assert listing(tmp_path) == ['ann.zip']

@pytest.mark.parametrize('first', [500, 'stall', 'short', b'<html>'], ids=str)
def test_annotations_heal(server, zipped, tmp_path, first):
    server.plan['ann.zip'] = [first, 'ok']
    assert coco_annotations(tmp_path, url=zipped, timeout=0.3).is_file() and server.hits == {'ann.zip': 2}
    assert listing(tmp_path) == ['ann.zip', 'instances_val2017.json']

@pytest.mark.parametrize('fault,says,tries', [(404, 'HTTP 404 Not Found', 1), ('stall', 'server silent for 0.3 s', 2), ('drip', 'was not finished by the deadline', 1),
    ('short', 'ends before its Content-Length', 2), (b'<html>', 'is not a zip file', 2), (b'', 'is not a zip file', 2)], ids='404 stall drip short html empty'.split())
def test_annotations_fail(server, zipped, tmp_path, fault, says, tries):
    server.plan['ann.zip'] = [fault]
    with pytest.raises(DownloadError, match=rf'ann\.zip could not be downloaded: {says}\.$'): coco_annotations(tmp_path, url=zipped, timeout=0.3, deadline=1, retries=1)
    assert not listing(tmp_path) and server.hits == {'ann.zip': tries}

def test_annotations_damaged_zip(server, zipped, tmp_path):
    b = bytearray(server.files['ann.zip'])
    with zipfile.ZipFile(io.BytesIO(b)) as z: o = z.getinfo('annotations/instances_val2017.json')
    mid = o.header_offset + o.compress_size//2
    b[mid:mid + 50] = bytes(50)
    server.files['ann.zip'] = bytes(b)
    with pytest.raises(ValueError, match=r'ann\.zip is damaged .* Delete it'): coco_annotations(tmp_path, url=zipped)
    assert listing(tmp_path) == ['ann.zip']

def test_annotations_interrupted(server, zipped, tmp_path, monkeypatch):
    server.plan['ann.zip'] = [lambda: threading.Timer(0.2, ctrl_c).start() or 'stall']
    with pytest.raises(KeyboardInterrupt): coco_annotations(tmp_path, url=zipped)
    assert not listing(tmp_path)
    server.plan.clear()
    def stop(src, dst, size):
        dst.write(b'half')
        raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(coco.shutil, 'copyfileobj', stop)
        with pytest.raises(KeyboardInterrupt): coco_annotations(tmp_path, url=zipped)
    assert listing(tmp_path) == ['ann.zip']
    assert coco_annotations(tmp_path, url=zipped).is_file()

def test_annotations_full_disk(server, zipped, tmp_path, monkeypatch):
    def full(*args): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(coco.shutil, 'copyfileobj', full)
    with pytest.raises(OSError, match=r'instances_val2017\.json cannot be written: No space left'): coco_annotations(tmp_path, url=zipped)
    assert listing(tmp_path) == ['ann.zip']

def test_annotations_of_another_hash(server, zipped, tmp_path, monkeypatch):
    data = server.files['ann.zip']
    monkeypatch.setitem(coco._SHA256, 'ann.zip', hashlib.sha256(data).hexdigest())
    assert coco_annotations(tmp_path/'good', url=zipped).is_file()
    server.files['ann.zip'] = data + b'.'
    with pytest.raises(DownloadError, match='has the SHA-256 [0-9a-f]{64} instead of '): coco_annotations(tmp_path/'bad', url=zipped, retries=1)
    assert not listing(tmp_path/'bad') and server.hits['ann.zip'] == 3

def test_zip_bomb(server, zipped, tmp_path):
    with io.BytesIO() as f:
        with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('a/instances_val2017.json', bytes(50_000_000))
        server.files['ann.zip'] = f.getvalue()
    assert len(server.files['ann.zip']) < 60_000
    with pytest.raises(ValueError, match=r'ann\.zip holds [\d,]+ bytes that would unpack to 50,000,000'): coco_annotations(tmp_path, url=zipped)
    assert listing(tmp_path) == ['ann.zip']

def test_zip_that_lies_about_its_size(server, zipped, tmp_path):
    "The directory says 1,000 bytes: never more than these come out, and then it is damaged"
    with io.BytesIO() as f:
        with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z:
            z.writestr('instances_val2017.json', bytes(50_000_000))
            z.infolist()[0].file_size = 1000
        server.files['ann.zip'] = f.getvalue()
    with pytest.raises(ValueError, match=r'ann\.zip is damaged'): coco_annotations(tmp_path, url=zipped)
    assert listing(tmp_path) == ['ann.zip']
