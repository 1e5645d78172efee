"Films through the command: sound and times stay, a stop costs one piece at most, and what goes wrong is one sentence"
import resource, signal, subprocess, sys, time
from fractions import Fraction

import numpy as np, pytest
from skimage import data

av = pytest.importorskip('av', reason="PyAV is missing: pip install -e '.[video]'")
pytest.importorskip('cv2', reason="OpenCV is missing: pip install -e '.[video]'")

from fastai_colorize import Colorizer
from fastai_colorize.cli import main
from fastai_colorize.use.films import film_frames, make_film, open_film
from fastai_colorize.use.pieces import work_folder
from fastai_colorize.use.planes import to_rgb
import fastai_colorize.use.video

COFFEE,CAT = data.coffee(),data.chelsea()

def pan(photo, n, w=192, h=144, speed=2):
    "A camera that goes to and fro"
    for i in range(n):
        x = abs((speed*i) % (2*(photo.shape[1] - w)) - (photo.shape[1] - w))
        yield np.ascontiguousarray(photo[60:60+h,x:x+w])

def with_sound(path, frames, codec='aac', rate=Fraction(24000, 1001)):
    "A film with a tone, at a rate that is no whole number"
    with av.open(str(path), 'w') as c:
        v,a = c.add_stream('libx264', rate=rate, options=dict(bf='2')),c.add_stream(codec, rate=48000, layout='stereo')
        c.metadata.update(title='Two cups', comment='made for a test')
        for i,o in enumerate(frames):
            if i == 0: v.height,v.width,v.pix_fmt = *o.shape[:2],'yuv420p'
            c.mux(v.encode(av.VideoFrame.from_ndarray(o, format='rgb24')))
            n = 2002
            tone = (np.sin(np.arange(i*n, (i + 1)*n)*.06)*8000).astype(np.int16).repeat(2)[None]
            sound = av.AudioFrame.from_ndarray(tone, format='s16', layout='stereo')
            sound.rate,sound.pts = 48000,i*n
            c.mux(a.encode(sound))
        c.mux([*v.encode(None), *a.encode(None)])
    return path

def packets(path, kind):
    "Times and bytes of the packets of a stream, in order of time"
    with av.open(str(path)) as c:
        return sorted((p.pts*p.time_base, bytes(p)) for p in c.demux(**{kind: 0}) if p.pts is not None)

def times(path, kind='video'): return [t for t,_ in packets(path, kind)]

@pytest.fixture(scope='module')
def colorizer(): return Colorizer.from_pretrained(device='cpu')

@pytest.fixture
def film(tmp_path): return with_sound(tmp_path/'old.mp4', pan(COFFEE, 40))

def test_sound_times_and_texts(film, tmp_path, capsys):
    "To the tick, and the sound byte for byte"
    assert main(['video', str(film), '--out', str(tmp_path/'new'), '--strip']) == 0
    new = tmp_path/'new'/'old.mp4'
    assert times(new) == times(film) and packets(new, 'audio') == packets(film, 'audio')
    with av.open(str(new)) as c:
        assert c.metadata['title'] == 'Two cups' and c.metadata['comment'] == 'made for a test'
        cc = c.streams.video[0].codec_context
        assert (cc.name, int(cc.color_range), int(cc.colorspace), int(cc.color_trc)) == ('h264', 1, 5, 1)
    assert '40 frames in 1 scene, now' in capsys.readouterr().out
    assert sorted(o.name for o in (tmp_path/'new').iterdir()) == ['old.mp4', 'old.strip.jpg']
    assert main(['video', str(film), '--out', str(tmp_path/'new')]) == 0            # what is there stays
    assert 'is there already' in capsys.readouterr().out

def test_bad_films(tmp_path, capsys, film):
    "One sentence each, and the good one is made all the same"
    (tmp_path/'text.mp4').write_text('no film\n'*999)
    (tmp_path/'cut.mp4').write_bytes(film.read_bytes()[:20_000])
    make_film(tmp_path/'wide.mkv', [np.zeros((16,16384,3), np.uint8)], codec='ffv1')
    with av.open(str(tmp_path/'sound.mp4'), 'w') as c:
        with av.open(str(film)) as source:
            s = c.add_stream_from_template(source.streams.audio[0])
            for p in source.demux(audio=0):
                if p.dts is not None: p.stream = s; c.mux(p)
    with_sound(tmp_path/'pcm.mkv', pan(COFFEE, 5), codec='pcm_s16le')
    bad = ['text.mp4', 'cut.mp4', 'wide.mkv', 'sound.mp4', 'nowhere.mp4']
    assert main(['video', *(str(tmp_path/o) for o in bad), str(film), '--out', str(tmp_path/'new')]) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 5 and all(f'{tmp_path/o}: ' in line for o,line in zip(bad, err)), err
    for why,line in zip(('no film', 'no film', '16384×16', 'no pictures', 'no such film'), err): assert why in line
    assert [o.name for o in (tmp_path/'new').iterdir()] == ['old.mp4']
    assert main(['video', str(tmp_path/'pcm.mkv'), '--out', str(tmp_path/'a.webm'), '--codec', 'vp9']) == 1
    assert 'audio in pcm_s16le, which .webm does not take; write it as .mkv.' in capsys.readouterr().err
    assert main(['video', str(tmp_path/'pcm.mkv'), '--out', str(tmp_path/'a.mkv')]) == 0
    assert packets(tmp_path/'a.mkv', 'audio') == packets(tmp_path/'pcm.mkv', 'audio')

RUN = 'import sys; from fastai_colorize.cli import main; sys.exit(main(sys.argv[1:]))'
def start(*args): return subprocess.Popen([sys.executable, '-W', 'ignore', '-c', RUN, *map(str, args)], stderr=subprocess.PIPE, text=True)

@pytest.mark.parametrize('signum', (signal.SIGKILL, signal.SIGINT), ids=('SIGKILL', 'SIGINT'))
def test_a_stop_costs_one_piece(tmp_path, signum, colorizer):
    "Killed in the second piece: the same command goes on, and the film is, byte by byte, that of a run without a stop"
    old,new = make_film(tmp_path/'old.mp4', pan(COFFEE, 300, 96, 64), g=30),tmp_path/'new.mp4'
    p = start('video', old, '--out', new)
    report = work_folder(new)/'00000.json'
    while not report.exists() and p.poll() is None: time.sleep(.05)
    p.send_signal(signum)
    _,err = p.communicate(timeout=120)
    assert p.returncode == (-9 if signum == signal.SIGKILL else 130), err
    if signum == signal.SIGINT: assert 'What was finished is kept' in err
    assert not new.exists() and report.exists()
    first = (work_folder(new)/'00000.piece').stat().st_mtime_ns
    seen = []
    original = fastai_colorize.use.pieces.painted
    def watched(order, number, *args):
        seen.append((number, (work_folder(new)/'00000.piece').stat().st_mtime_ns))
        return original(order, number, *args)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(fastai_colorize.use.pieces, 'painted', watched)
        assert main(['video', str(old), '--out', str(new)]) == 0
    assert seen == [(256, first)] and not work_folder(new).exists()
    colorizer.colorize_video(old, tmp_path/'whole.mp4')
    assert new.read_bytes() == (tmp_path/'whole.mp4').read_bytes()

def test_full_disk(tmp_path, film, capsys):
    "A sentence, and no half film"
    soft,hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try: assert main(['video', str(film), '--out', str(tmp_path/'new.mp4')]) == 1
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and 'cannot be written' in err, err
    assert not (tmp_path/'new.mp4').exists() and not list(tmp_path.rglob('*.part'))
    assert main(['video', str(film), '--out', str(tmp_path/'new.mp4')]) == 0       # and when there is room it goes on

def test_no_ghosts(tmp_path, colorizer):
    "Two frames after a cut nothing of the old scene is left: as if it had never been"
    cut = make_film(tmp_path/'cut.mp4', [*pan(COFFEE, 20), *pan(CAT, 20)], crf=10)
    alone = make_film(tmp_path/'alone.mp4', pan(CAT, 20), crf=10)
    made = colorizer.colorize_video(cut, tmp_path/'a.mp4')
    colorizer.colorize_video(alone, tmp_path/'b.mp4')
    assert made.scenes == 2
    a,b = ([to_rgb(f.planes).astype(int) for f in film_frames(open_film(tmp_path/o))] for o in ('a.mp4', 'b.mp4'))
    for i in range(20): assert np.abs(a[20+i] - b[i]).mean() < 2.5, i

def test_second_process_waits(tmp_path, film, capsys):
    "Two at one film would spoil each other's pieces"
    work = work_folder(tmp_path/'new.mp4')
    work.mkdir()
    code = f"from fastai_colorize.base.locks import lock_folder; lock_folder({str(work)!r}, 'colours a film'); print(1, flush=True); input()"
    p = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        p.stdout.readline()
        assert main(['video', str(film), '--out', str(tmp_path/'new.mp4')]) == 1
        assert 'colours a film in it' in capsys.readouterr().err
    finally: p.communicate('\n')

def test_without_the_packages(tmp_path, film, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    assert main(['video', str(film), '--out', str(tmp_path/'new.mp4')]) == 1
    assert "pip install 'fastai_colorize[video]'" in capsys.readouterr().err

@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    "Of a film of 10 minutes: no more than of one of 1 minute"
    code = '''
import resource, sys
from fastai_colorize import Colorizer
import fastai_colorize.use.video
Colorizer.from_pretrained(device='cpu', render_size=32).colorize_video(sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)'''
    peaks = []
    for minutes in (1, 10):
        old = make_film(tmp_path/f'{minutes}.mp4', pan(COFFEE, 600*minutes, 96, 64, 1), rate=10)
        out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, old, tmp_path/f'new{minutes}.mp4'], capture_output=True, text=True, check=True).stdout
        peaks.append(float(out.splitlines()[-1]))
        assert times(tmp_path/f'new{minutes}.mp4') == times(old)
    assert peaks[1] < peaks[0] + 60, peaks
