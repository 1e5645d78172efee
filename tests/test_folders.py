"What strangers' folders hold: photos under any name, what is no photo, names and files that hang or stop a program; and results that a stop has left"
import os, socket, subprocess, sys
from pathlib import Path

import pytest, torch
from PIL import Image
from skimage import data
from torch import nn

from fastai_colorize.base import folders
from fastai_colorize.base.folders import describe_skipped, expand_pattern, find_photos, search_photos
from fastai_colorize.base.headers import is_photo
from fastai_colorize.base.photos import PhotoError, check_photos, open_photo
from fastai_colorize.cli import main
from fastai_colorize.use import folders as use_folders   # gives `Colorizer` the method
from fastai_colorize.use.colorizer import Colorizer

CAT = Image.fromarray(data.chelsea()).resize((90,60), Image.Resampling.BOX)

class Steady(nn.Module):
    "The same colour everywhere"
    def forward(self, l): return torch.cat([l*0 + .05, l*0 - .1], 1)

@pytest.fixture
def col(): return Colorizer(Steady(), 32)

def names(files): return sorted(Path(f).name for f in files)

# ---- what a folder holds

def test_photos_by_what_they_hold(tmp_path):
    "Under every suffix and none; what the suffix promises is kept for its row, whatever it holds"
    for name,fmt in {'a.jfif':'JPEG', 'b.jpe':'JPEG', 'c.jp2':'JPEG2000', 'd.ppm':'PPM', 'e':'PNG', 'f.avif':'AVIF', 'g.PNG':'PNG', 'h.dat':'TIFF', 'i.bmp_old':'BMP'}.items():
        CAT.save(tmp_path/name, fmt)
    (tmp_path/'no.jpg').write_text('no photo')
    (tmp_path/'P3.txt').write_text('P3 is a fine seat, they say'), (tmp_path/'BMW.txt').write_text('BMW is a car.'), (tmp_path/'Python').write_text('Python is a snake.')
    for n in ('x.dng', 'y.DNG'): CAT.save(tmp_path/n, 'TIFF')                 # raw files begin as a TIFF does
    (tmp_path/'film.mp4').write_bytes(b'\0\0\0\x18ftypmp42' + bytes(40))
    photos,skipped = search_photos(tmp_path)
    assert names(photos) == ['a.jfif', 'b.jpe', 'c.jp2', 'd.ppm', 'e', 'f.avif', 'g.PNG', 'h.dat', 'i.bmp_old', 'no.jpg'] and photos == sorted(photos)
    said = describe_skipped(skipped)
    assert said.startswith('6 files skipped: 2 ') and {'2 .dng', '2 .txt', '1 .mp4', '1 without suffix'} <= set(said.removeprefix('6 files skipped: ').rstrip('.').split(', '))

def test_what_is_hidden(tmp_path):
    for n in ('@eaDir/a.jpg', '.thumbs/a.jpg', '__MACOSX/a.jpg', '#recycle/a.jpg', '._a.jpg', 'Thumbs.db', 'desktop.ini', '.DS_Store', 'real/a.jpg'):
        (tmp_path/n).parent.mkdir(exist_ok=True), CAT.save(tmp_path/n, 'JPEG')
    assert search_photos(tmp_path) == ([tmp_path/'real'/'a.jpg'], {})

def test_one_sentence(tmp_path, capsys):
    CAT.save(tmp_path/'a.jpg')
    assert find_photos(tmp_path) == [tmp_path/'a.jpg'] and capsys.readouterr().out == ''
    for n in ('b.dng', 'c.dng', 'd.txt'): (tmp_path/n).touch()
    find_photos(tmp_path)
    assert capsys.readouterr().out == '3 files skipped: 2 .dng, 1 .txt.\n' and describe_skipped({}) == ''
    (tmp_path/'a.jpg').unlink()
    with pytest.raises(PhotoError, match=r'no photos in this folder or below. 3 files skipped: 2 .dng, 1 .txt.'): find_photos(tmp_path)

def test_folders_that_are_not_entered(tmp_path, monkeypatch):
    "Locked ones (root may enter them: somebody refuses it all the same) and links, which may lead in circles"
    for n in ('a.jpg', 'locked/b.jpg', 'deep/c.jpg'): (tmp_path/n).parent.mkdir(exist_ok=True), CAT.save(tmp_path/n)
    (tmp_path/'deep'/'circle').symlink_to(tmp_path)
    (tmp_path/'itself').symlink_to(tmp_path/'itself')
    real = os.scandir
    def scandir(p):
        if Path(p).name == 'locked': raise PermissionError(13, 'Permission denied')
        return real(p)
    monkeypatch.setattr(folders.os, 'scandir', scandir)
    photos,skipped = search_photos(tmp_path)
    assert names(photos) == ['a.jpg', 'c.jpg'] and names(skipped) == ['circle', 'itself', 'locked']
    said = describe_skipped(skipped)
    assert 'locked: a folder that cannot be read' in said and 'circle: a folder that is a link and not followed' in said
    with pytest.raises(PhotoError, match='locked: cannot be read: Permission denied'): find_photos(tmp_path/'locked')

def test_patterns(tmp_path, col):
    for n in ('a.jpg', 'b.jpg', 'sub/c.jpg', 'd.png', 'sub/a_small.jpg'): (tmp_path/n).parent.mkdir(exist_ok=True), CAT.save(tmp_path/n)
    assert names(expand_pattern(f'{tmp_path}/*.jpg')) == ['a.jpg', 'b.jpg'] and names(find_photos(f'{tmp_path}/**/*.jpg')) == ['a.jpg', 'a_small.jpg', 'b.jpg', 'c.jpg']
    assert names(find_photos(tmp_path, exclude=['*_small.*', 'd.png'])) == ['a.jpg', 'b.jpg', 'c.jpg'] and names(find_photos(tmp_path, exclude='sub/')) == ['a.jpg', 'b.jpg', 'd.png']
    CAT.save(tmp_path/'[1].jpg')
    assert find_photos(tmp_path/'[1].jpg') == [tmp_path/'[1].jpg']           # who is there is no pattern
    with pytest.raises(FileNotFoundError, match='named like this'): find_photos(tmp_path/'*.gif')
    report = col.colorize_files([tmp_path/'*.png', tmp_path/'*.gif', tmp_path/'s*'], tmp_path/'out')
    assert names(report.result.dropna()) == ['a_small.jpg', 'c.jpg', 'd.png'] and report[report.result.isna()].file.tolist() == [tmp_path/'*.gif']

def test_the_list_of_the_caller_is_left_alone(tmp_path, col):
    CAT.save(tmp_path/'a.png')
    paths = [tmp_path/'a.png', tmp_path/'*.png']
    assert len(col.colorize_files(paths, tmp_path/'out')) == 1 and paths == [tmp_path/'a.png', tmp_path/'*.png']

# ---- files that hang, names that stop

def others(folder):
    "What is no regular file, and names that few programs expect"
    os.mkfifo(folder/'pipe.jpg')
    (folder/'circle.jpg').symlink_to(folder/'circle.jpg')
    (folder/'nowhere.jpg').symlink_to(folder/'gone.jpg')
    (folder/'zero.jpg').symlink_to('/dev/zero')
    s = socket.socket(socket.AF_UNIX)
    os.chdir(folder)
    s.bind('socket.jpg'), s.close()
    return ['circle.jpg', 'nowhere.jpg', 'pipe.jpg', 'socket.jpg', 'zero.jpg']

LATIN = os.fsdecode(b'caf\xe9.jpg')
LONG = 'x'*251 + '.bmp'                                                       # its result would have 259 letters

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
def test_every_file_gets_a_row(tmp_path, col, monkeypatch):
    monkeypatch.chdir(tmp_path)
    src = tmp_path/'src'
    src.mkdir()
    bad = others(src)
    for n in ('good.png', LATIN, LONG): CAT.save(src/n)
    report = col.colorize_files([src, src/'pipe.jpg', 'a\0b.jpg', 'y'*300, src/'circle.jpg'], tmp_path/'out').astype({'file':str})
    made = report[report.reason == '']
    assert names(made.file) == sorted(['good.png', LATIN]) and all(open_photo(f).size == CAT.size for f in made.result)
    why = {Path(f).name: r for f,r in zip(report.file, report.reason) if r}
    assert set(why) == {*bad, LONG, 'a\0b.jpg', 'y'*300}
    assert 'not a regular file' in why['pipe.jpg'] and 'not a regular file' in why['zero.jpg'] and 'no such file' in why['nowhere.jpg']
    assert 'null' in why['a\0b.jpg'] and 'too long' in why['y'*300] and 'too long' in why[LONG] and 'symbolic links' in why['circle.jpg']
    checked = check_photos(find_photos(src))
    assert names(checked.file[checked.ok]) == sorted(['good.png', LATIN, LONG])

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='no pipes here')
def test_the_command_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    src = tmp_path/'src'
    src.mkdir(), others(src)
    for n in ('good.png', LATIN): CAT.save(src/n)
    (src/'a.dng').touch(), (src/'b.dng').touch(), (src/'c.txt').touch()
    assert main(['colorize', str(src), '--out', str(tmp_path/'out'), '--render-size', '32']) == 1
    said = capsys.readouterr()
    assert 'Coloured 2 of 7 photos' in said.out and '3 files skipped: 2 .dng, 1 .txt.' in said.out and 'pipe.jpg: cannot be read: not a regular file' in said.err
    assert main(['colorize', str(src/'*.png'), '--out', str(tmp_path/'out2'), '--render-size', '32', '--exclude', 'x*']) == 0

def test_is_photo_needs_more_than_two_letters(tmp_path):
    for text in ('BM', 'P6', 'Py', 'Pf', 'P6 what?'): (tmp_path/'a').write_text(text + ' and more words'); assert not is_photo(tmp_path/'a'), text
    for fmt in ('BMP', 'PPM'): CAT.save(tmp_path/'a', fmt); assert is_photo(tmp_path/'a')
    assert not is_photo(tmp_path/'none') and not is_photo(tmp_path)

# ---- results that a stop has left

def test_broken_results_are_made_again(tmp_path, col):
    src,out = tmp_path/'src',tmp_path/'out'
    src.mkdir()
    for n in ('empty.jpg', 'zeros.png', 'cut.jpg', 'whole.png', 'old.png', 'letter.png'): CAT.save(src/n)
    col.colorize_files(src, out)
    right = {f: f.read_bytes() for f in out.iterdir()}
    (out/'empty.jpg').write_bytes(b'')
    (out/'zeros.png').write_bytes(bytes(5000))
    (out/'cut.jpg').write_bytes(right[out/'cut.jpg'][:700])
    (out/'letter.png').write_text('Dear photo, this is nobody\'s to overwrite.')
    (out/'whole.png').write_bytes(kept := (src/'whole.png').read_bytes())
    os.utime(src/'old.png', ns=(2**62, (out/'old.png').stat().st_mtime_ns + 10**9))   # taken anew after it was coloured
    report = col.colorize_files(src, out).set_index('file')
    reason = {f.name: r for f,r in report.reason.items()}
    assert {n for n,r in reason.items() if r == ''} == {'empty.jpg', 'zeros.png', 'cut.jpg', 'old.png'} and reason['whole.png'] == 'exists already' and 'is no photo' in reason['letter.png']
    for n in ('empty.jpg', 'zeros.png', 'cut.jpg', 'old.png'): assert (out/n).read_bytes() == right[out/n], n
    assert (out/'whole.png').read_bytes() == kept and (out/'letter.png').read_text().startswith('Dear')

def test_leftovers_are_removed(tmp_path, col):
    (tmp_path/'out'/'deep').mkdir(parents=True)
    CAT.save(tmp_path/'a.png')
    code = f"import os, signal\nfrom fastai_colorize.base.files import writing\nwith writing({str(tmp_path/'out'/'deep'/'a.png')!r}) as p:\n    p.touch()\n    os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, '-c', code])
    (tmp_path/'out'/'.mine.part').touch()
    assert len(list((tmp_path/'out'/'deep').iterdir())) == 1
    col.colorize_files(tmp_path/'a.png', tmp_path/'out')
    assert list((tmp_path/'out'/'deep').iterdir()) == [] and names((tmp_path/'out').iterdir()) == ['.mine.part', 'a.png', 'deep']
