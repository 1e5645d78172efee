"500 of the mutated files of `benchmarks/fuzz.py`; its sieve, which has to see what is wrong"
import importlib.util, subprocess, sys
from pathlib import Path

from fastai_colorize.base.photos import PhotoError

root = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location('fuzz', root/'benchmarks'/'fuzz.py')
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)

def test_500_files(tmp_path):
    "Read or refused in one sentence, each; 50 of them in folders that are coloured"
    cmd = [sys.executable, '-W', 'ignore', fuzz.__file__, '--n', '500', '--seed', '0', '--keep', tmp_path]
    res = subprocess.run(cmd, capture_output=True, text=True)
    assert res.returncode == 0, res.stdout[-3000:] + res.stderr[-3000:]
    assert '500 files' in res.stdout and '0 faults' in res.stdout and list(tmp_path.iterdir()) == []

def test_the_same_file_each_time():
    files = fuzz.valid_files()
    suffixes = set('.jpg .png .gif .webp .bmp .ppm .pfm .jp2 .j2k .avif .tif .dng'.split())
    assert len(files) >= 40 and {Path(o).suffix for o in files} >= suffixes
    made = [fuzz.mutated(0, i, files) for i in range(300)]
    assert made == [fuzz.mutated(0, i, files) for i in range(300)] and len({o for _,o in made}) > 290
    assert sum(data == files[name] for name,data in made) < 15

def test_valid_files_are_valid(tmp_path):
    for name,data in fuzz.valid_files().items():
        (tmp_path/name).write_bytes(data)
        assert fuzz.check(tmp_path/name) == ('refused' if name == 'raw.dng' else 'read'), name

def test_sentences():
    assert fuzz.one_sentence(PhotoError('a.jpg', 'broken: no end.')) == ''
    for reason in ('', 'no end', "x.", 'a' * 500 + '.', 'bell \u200b and nothing.'):
        assert fuzz.one_sentence(PhotoError('a.jpg', reason)), reason

def test_faults_are_kept(tmp_path, monkeypatch, capsys):
    "A process that dies, one that hangs, and a traceback"
    code = f'''import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location('fuzz', {fuzz.__file__!r})
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)
def check(path):
    i = int(path.stem.split('_')[1])
    if i == 1: os._exit(3)
    if i == 2: time.sleep(60)
    if i == 3: 1/0
    return 'read'
fuzz.check,fuzz.check_folder = check,lambda paths, out: ['coloured']*len(paths)
sys.exit(fuzz.main())'''
    (tmp_path/'fuzz.py').write_text(code)
    monkeypatch.setattr(fuzz, '__file__', str(tmp_path/'fuzz.py'))
    monkeypatch.setattr(sys, 'argv', ['fuzz', '--n', '5', '--limit', '.3', '--keep', str(tmp_path/'kept')])
    assert fuzz.main() == 1
    said = capsys.readouterr().out
    assert 'status 3' in said and 'hangs' in said and 'ZeroDivisionError' in said and "'faults': 3" in said
    assert sorted(o.stem for o in (tmp_path/'kept').iterdir()) == ['0_1', '0_2', '0_3']
