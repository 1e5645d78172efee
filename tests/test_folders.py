"What strangers' folders hold: photos under any name, what is no photo, names and files that hang or stop a program; and results that a stop has left"
import io, os, shutil, socket, subprocess, sys, warnings
from pathlib import Path

import numpy as np, pytest, torch
from PIL import Image
from skimage import data
from torch import nn

from fastai_colorize.base import folders
from fastai_colorize.base.exif import write_tags
from fastai_colorize.base.folders import describe_skipped, expand_pattern, find_photos, search_photos
from fastai_colorize.base.headers import is_photo
from fastai_colorize.base.photos import PhotoError, open_photo
from fastai_colorize.base.usable import check_photos
from fastai_colorize.base.pictures import sample_photos
from fastai_colorize import learner
from fastai_colorize.cli import main, parser
from fastai_colorize.data.loaders import ColorDataLoaders
from fastai_colorize.use import folders as use_folders   # gives `Colorizer` the method
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.use.evaluate import evaluate_folder
from fastai_colorize.use.orders import Wishes, give_colour

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

def test_patterns_of_a_training_and_of_what_is_measured(photo_folder, tmp_path):
    "The same words as of `colorize`; pictures of others are not missed for photos that are left out"
    dls = ColorDataLoaders.from_folders([photo_folder], exclude=['coffee', '7.*'], size=32, bs=4, check=False,
                                        num_workers=0)
    seen = {f.relative_to(photo_folder).as_posix() for d in (dls.train_ds, dls.valid_ds) for f in d.items}
    assert seen == {f'{o}/{i}.png' for o in ('astronaut', 'chelsea') for i in range(7)}
    (tmp_path/'peer').mkdir()
    for i in range(2): shutil.copy(photo_folder/'coffee'/f'{i}.png', tmp_path/'peer')
    res = evaluate_folder(photo_folder/'coffee', tmp_path/'out', pictures=tmp_path/'peer', size=64,
                          exclude=['[2-7].png'])
    assert res.photos.photo.unique().tolist() == ['0.png', '1.png']
    defaults = vars(parser('train').parse_args(['train', 'a', '--out', 'b', '--exclude', '*_small.*', 'x']))
    assert defaults['exclude'] == ['*_small.*', 'x']
    args = parser('evaluate').parse_args(['evaluate', 'a', '--out', 'b', '--exclude', 'x'])
    assert vars(args)['exclude'] == ['x']
    with pytest.raises(ValueError, match='`exclude`'): learner.train(dls, tmp_path/'run', exclude=['x'])

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

class Still(Steady):
    "The same network under another name"

def test_other_settings_are_not_there_already(tmp_path, col):
    "In every format that a result has; of each thing that changes pixels; also in a folder copied without its dates"
    src,out = tmp_path/'src',tmp_path/'out'
    src.mkdir()
    for n in ('a.jpg', 'b.png', 'c.webp', 'd.tif', 'e.bmp'): CAT.save(src/n)
    col.colorize_files(src, out)
    first = {f.name: f.read_bytes() for f in out.iterdir()}
    shutil.copytree(out, tmp_path/'copied', copy_function=shutil.copyfile)
    for o in (out, tmp_path/'copied'):
        report = col.colorize_files(src, o, saturation=1.0, render_size=32)
        assert (report.reason == 'exists already').all() and (report.note == '').all()
    conv = nn.Conv2d(1, 2, 1)
    for c,kw,what in [(col, dict(saturation=1.2), 'saturation 1'),
                      (col, dict(render_size=64), 'render size 32, saturation 1.2'),
                      (Colorizer(Still(), 64), {}, 'weights'), (Colorizer(conv, 64), {}, 'weights')]:
        report = c.colorize_files(src, out, **kw)
        assert (report.reason == '').all()
        assert report.note.str.startswith(f'made again: the one there had {what}').all(), report.note
        assert (c.colorize_files(src, out, **kw).reason == 'exists already').all()
    with torch.no_grad(): conv.bias.add_(.01)                                  # trained on
    assert (Colorizer(conv, 64).colorize_files(src, out).note.str.contains('had weights')).all()
    again = col.colorize_files(src, out)                                       # as they were at first, to the last byte
    assert (again.reason == '').all() and {f.name: f.read_bytes() for f in out.iterdir()} == first

def test_results_without_settings_stay(tmp_path, col):
    "Those of earlier releases: whole, not older than their source, and nobody knows how they were made"
    CAT.save(tmp_path/'a.jpg'), (tmp_path/'out').mkdir(), CAT.save(tmp_path/'out'/'a.jpg')
    exif = Image.Exif(); exif[11] = 'another program: 1'
    CAT.save(tmp_path/'b.png'), CAT.save(tmp_path/'out'/'b.png', exif=exif)
    before = {f: f.read_bytes() for f in (tmp_path/'out').iterdir()}
    report = col.colorize_files([tmp_path/'a.jpg', tmp_path/'b.png'], tmp_path/'out', saturation=1.5)
    assert (report.reason == 'exists already').all() and (report.note == 'made with settings that are not known').all()
    assert {f: f.read_bytes() for f in before} == before
    assert (col.colorize_files(tmp_path/'a.jpg', tmp_path/'out', overwrite=True).reason == '').all()

def test_settings_beside_the_sources_own_words(tmp_path, col):
    """The program of the scanner stays; of a result that is coloured again, the last word counts; where a JPEG has no
    space for both, its own"""
    exif = Image.Exif(); exif[0x131] = 'ScanPro 3'
    CAT.save(tmp_path/'a.jpg', exif=exif)
    long = write_tags('<', {0x10e:(2, 65_490, b'x'*65_489 + b'\0')})
    Image.new('RGB', (40,40)).save(tmp_path/'b.jpg', exif=b''.join([b'Exif\0\0', *long]))
    col.colorize_files(tmp_path/'*.jpg', tmp_path/'one', saturation=.5)
    col.colorize_files(tmp_path/'one', tmp_path/'two')
    kept = Image.open(tmp_path/'two'/'a.jpg').getexif()
    assert kept[0x131] == 'ScanPro 3' and kept[11].endswith('saturation 1')
    assert 'saturation 0.5' in Image.open(tmp_path/'one'/'a.jpg').getexif()[11]
    assert dict(Image.open(tmp_path/'one'/'b.jpg').getexif()).keys() == {0x10e}

def test_results_have_the_date_of_their_source(tmp_path, col, monkeypatch):
    src,out = tmp_path/'src',tmp_path/'out'
    src.mkdir()
    dates = {'a.jpg': 10**18 + 1, 'b.png': 1, 'c.webp': 2*10**18 + 123_456_789, 'd.tif': 315_532_800*10**9,
             'e.bmp': 1_700_000_001*10**9}
    for n,ns in dates.items(): CAT.save(src/n), os.utime(src/n, ns=(ns, ns))
    col.colorize_files(src, out)
    source = lambda f: f.name.removesuffix('.png') if '.bmp' in f.name else f.name
    assert {source(f): f.stat().st_mtime_ns for f in out.iterdir()} == dates
    assert {f.name: f.stat().st_mtime_ns for f in src.iterdir()} == dates
    assert (col.colorize_files(src, out).reason == 'exists already').all()      # equal is not older
    os.utime(src/'a.jpg', ns=(dates['a.jpg'] + 1,)*2)
    report = col.colorize_files(src, out).set_index('file')
    assert report.reason[src/'a.jpg'] == '' and (report.reason == '').sum() == 1
    # a file system with even seconds: never older than its source, so never made again for nothing
    real = os.utime
    even = lambda f, ns: real(f, ns=tuple(o//(2*10**9)*2*10**9 for o in ns))
    monkeypatch.setattr(use_folders.os, 'utime', even)
    col.colorize_files(src, tmp_path/'fat')
    assert (col.colorize_files(src, tmp_path/'fat').reason == 'exists already').all()
    for n in ('b.png', 'c.webp'):
        assert 0 <= (tmp_path/'fat'/n).stat().st_mtime_ns - (src/n).stat().st_mtime_ns <= 2*10**9
    def refuse(f, ns): raise PermissionError(1, 'Operation not permitted')
    monkeypatch.setattr(use_folders.os, 'utime', refuse)
    assert (col.colorize_files(src, tmp_path/'share').note == 'without its date').all()

def test_a_source_that_changes_while_it_is_coloured_is_newer(tmp_path):
    "What was read before the change is not current"
    class Slow(Steady):
        def forward(self, l):
            os.utime(tmp_path/'a.png')
            return super().forward(l)
    CAT.save(tmp_path/'a.png'), os.utime(tmp_path/'a.png', ns=(10**18, 10**18))
    c = Colorizer(Slow(), 32)
    for _ in range(2): assert c.colorize_files(tmp_path/'a.png', tmp_path/'out').reason[0] == ''

def test_broken_tags_and_profiles_are_noted(tmp_path, col):
    "In the report and by the command, and not as a warning of Python"
    CAT.save(tmp_path/'a.jpg', exif=b'Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage', icc_profile=b'garbage')
    CAT.save(tmp_path/'b.png', icc_profile=b'garbage')
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        report = col.colorize_files([tmp_path/'a.jpg', tmp_path/'b.png'], tmp_path/'out')
    assert {Path(o.filename).parent.name for o in seen} <= {'PIL'}              # Pillow has its own words
    profile = 'its colour profile cannot be used and is left out'
    assert report.note.tolist() == [f'its EXIF is broken and left out; {profile}', profile]
    assert (report.reason == '').all()
    code = 'import sys; from fastai_colorize.cli import main; sys.exit(main(sys.argv[1:]))'
    args = ['colorize', *map(str, report.file), '--out', str(tmp_path/'out2'), '--render-size', '32']
    run = subprocess.run([sys.executable, '-c', code, *args], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, '')
    assert f'b.png: {profile}' in run.stdout and 'a.jpg: its EXIF is broken' in run.stdout

def test_leftovers_are_removed(tmp_path, col):
    (tmp_path/'out'/'deep').mkdir(parents=True)
    CAT.save(tmp_path/'a.png')
    code = f"import os, signal\nfrom fastai_colorize.base.files import writing\nwith writing({str(tmp_path/'out'/'deep'/'a.png')!r}) as p:\n    p.touch()\n    os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, '-c', code])
    (tmp_path/'out'/'.mine.part').touch()
    assert len(list((tmp_path/'out'/'deep').iterdir())) == 1
    col.colorize_files(tmp_path/'a.png', tmp_path/'out')
    assert list((tmp_path/'out'/'deep').iterdir()) == [] and names((tmp_path/'out').iterdir()) == ['.mine.part', 'a.png', 'deep']

# ---- the same photo by other ways

def test_one_photo_by_all_ways(tmp_path):
    """Alone, in a batch, in a folder, by the app, with one thread and two: at most one step of 255, in fewer than one
    of 100,000 values; a second time, and by the app, to the last bit"""
    (tmp_path/'src').mkdir()
    for k,rgb in [*sample_photos().items()][:4]: Image.fromarray(rgb).resize((160,120)).save(tmp_path/'src'/f'{k}.png')
    files,n,ways = sorted((tmp_path/'src').iterdir()),torch.get_num_threads(),{}
    col = Colorizer.from_pretrained(device='cpu')
    arrays = lambda ims: np.stack([np.asarray(o).astype(int) for o in ims])
    def by_app(f, folder): return Image.open(io.BytesIO(give_colour(col, Path(shutil.copy(f, folder/'photo')), f.name, Wishes())[0]))
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for o in ('folder', 'app'): (tmp_path/f'{o}{threads}').mkdir()
            ways[threads,'alone'],again = [arrays(map(col.colorize, files)) for _ in range(2)]
            ways[threads,'app'] = arrays(by_app(f, tmp_path/f'app{threads}') for f in files)
            ways[threads,'batch'] = arrays(col.colorize_batch(files, bs=8))
            col.colorize_files(tmp_path/'src', tmp_path/f'folder{threads}')
            ways[threads,'folder'] = arrays(Image.open(tmp_path/f'folder{threads}'/f.name) for f in files)
            assert (ways[threads,'alone'] == again).all() and (ways[threads,'alone'] == ways[threads,'app']).all()
    finally: torch.set_num_threads(n)
    for way,o in ways.items():
        far = np.abs(o - ways[1,'alone'])
        assert far.max() <= 1 and far.sum() <= far.size/100_000, (way, far.max(), far.sum(), far.size)
