"The command whose output is lost, or cannot be written in its code page; and that is stopped at any moment"
import errno, io, os, signal, subprocess, sys, time

import pytest
from PIL import Image
from skimage import data

from fastai_colorize.base.output import LastingStream, is_lost

COMMAND = [sys.executable, '-c', 'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom fastai_colorize.cli import main; sys.exit(main())']
CAT = Image.fromarray(data.chelsea()).resize((90,60), Image.Resampling.BOX)

@pytest.fixture
def album(tmp_path):
    (tmp_path/'album').mkdir()
    for i in range(12): CAT.save(tmp_path/'album'/f'{i}.png')
    CAT.save(tmp_path/'album'/'Δ.jpg')
    (tmp_path/'album'/'Δ broken.jpg').write_text('no photo')
    return tmp_path/'album'

def colour(album, stdout, **env):
    args = ['colorize', str(album), '--out', str(album.parent/'out'), '--render-size', '32']
    return subprocess.run([*COMMAND, *args], stdout=stdout, stderr=subprocess.PIPE, env={**os.environ, **env})

def made(album): return len(list((album.parent/'out').glob('[0-9Δ]*')))

def test_nobody_reads(album):
    "As `| head` when it has enough"
    r,w = os.pipe()
    os.close(r)
    res = colour(album, w)
    os.close(w)
    assert made(album) == 13 and res.returncode == 1 and b'1 of 14 photos failed' in res.stderr and b'Broken pipe' not in res.stderr and b'Traceback' not in res.stderr

@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full here')
def test_full(album):
    (album/'Δ broken.jpg').unlink()
    with open('/dev/full', 'w') as f: res = colour(album, f)
    assert made(album) == 13 and res.returncode == 1
    assert res.stderr.decode().strip().splitlines()[-1] == 'fastai_colorize: what was to be printed is lost (No space left on device); the work is done.'

def test_old_code_page(album):
    "Names and tables with letters that it lacks"
    res = colour(album, subprocess.PIPE, PYTHONIOENCODING='cp1252', PYTHONUTF8='0')
    assert res.returncode == 1 and made(album) == 13 and rb'\u0394 broken.jpg: not an image' in res.stderr and b'Coloured 13 of 14' in res.stdout and b'\r' not in res.stdout + res.stderr

def test_a_stream_that_breaks_later():
    class Breaks(io.StringIO):
        n = 0
        def write(self, text):
            self.n += 1
            if self.n > 2: raise OSError(errno.EIO, 'Input/output error')
            return super().write(text)
    s = LastingStream(Breaks())
    for i in range(4): s.write(f'{i} ')
    assert s.getvalue() == '0 1 ' and is_lost(s) == 'Input/output error'

@pytest.mark.skipif(os.name == 'nt', reason='signals')
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('after', [.2, .6, 1.5, 3])
def test_stopped(album, tmp_path, signum, after):
    "To the whole group of processes, as a terminal does: one sentence, the status of the signal, and nothing of it is left half done"
    args = ['train', str(album), '--out', str(tmp_path/'run'), '--size', '32', '--epochs', '500', '--no-pretrained', '--workers', '2', '--precision', 'float32']
    code = COMMAND[2].replace('from', 'print(flush=True)\nfrom').replace('sys.exit', 'print(flush=True); sys.exit')
    p = subprocess.Popen([COMMAND[0], '-c', code, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    p.stdout.readline(), p.stdout.readline()                      # it has begun
    time.sleep(after)
    os.killpg(p.pid, signum)
    err = p.communicate(timeout=60)[1]
    assert p.returncode == 128 + signum and 'Stopped.' in err and 'Traceback' not in err and 'Exception' not in err, err
    assert not list(tmp_path.rglob('*.part'))

def test_no_bars_between_results(album, tmp_path):
    "What is read by a program, or kept in a file, are lines; the same for a training, whose table of epochs is a result"
    args = ['train', str(album), '--out', str(tmp_path/'run'), '--size', '32', '--bs', '4', '--epochs', '1', '--no-pretrained', '--workers', '0', '--precision', 'float32']
    res = subprocess.run([*COMMAND, *args], capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    assert '\r' not in res.stdout + res.stderr and '█' not in res.stdout + res.stderr and '0:0' in res.stdout and 'Left out 1 of 14' in res.stdout
