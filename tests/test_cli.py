"The command, as a person types it."
import inspect, json, re, signal, subprocess, sys, time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest
from PIL import Image
from skimage import data

from fastai_colorize.cli import main, parser, verbs

COMMAND = [sys.executable, '-c', 'import sys; from fastai_colorize.cli import main; sys.exit(main())']

def shell(*args): return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True)

SMALL = ['--size', '32', '--bs', '4', '--valid-pct', '0.25', '--workers', '0']
TINY = [*SMALL, '--no-pretrained']

def one_sentence(err):
    "No traceback: one line that begins with the program's name"
    lines = [o for o in err.strip().splitlines() if o.startswith('fastai_colorize:')]
    assert len(lines) == 1 and 'Traceback' not in err, err
    return lines[0]

@pytest.mark.parametrize('command', [(), ('demo',), ('colorize',), ('app',), ('evaluate',), ('experiment',), ('train',), ('export',)], ids=' '.join)
def test_help(command, capsys, monkeypatch):
    "Short usage, examples before options, and nothing that a terminal would break"
    monkeypatch.setenv('COLUMNS', '80')
    with pytest.raises(SystemExit) as e: main([*command, '--help'])
    out = capsys.readouterr().out
    assert e.value.code == 0 and out.startswith(f"usage: {' '.join(('fastai_colorize', *command))}")
    assert 0 < out.index('examples:') < out.index('options:') and 'None' not in out and '==SUPPRESS==' not in out
    wide = [o for o in out.splitlines() if len(o) > 80 and not o.startswith('  fastai_colorize ')]   # an example is for copying
    assert not wide and len(out.splitlines()[0]) <= 80
    for o in re.findall(r'^  fastai_colorize (.+?)(?:   .*)?$', out, flags=re.M): parser().parse_args(o.split())   # every example can be typed

def test_an_error_without_words(monkeypatch, capsys):
    "Python's MemoryError says nothing"
    def full(**args): raise MemoryError()
    monkeypatch.setitem(verbs, 'demo', full)
    full.usage,full.__doc__,full.__name__ = '[options]','Fill the memory.','full'
    assert main(['demo']) == 1
    assert capsys.readouterr().err == 'fastai_colorize: MemoryError\n'

def test_version(capsys):
    with pytest.raises(SystemExit): main(['--version'])
    assert capsys.readouterr().out == f'fastai_colorize {version("fastai_colorize")}\n'

@pytest.mark.parametrize('command', ['', *verbs])
def test_help_is_quick(command):
    "No torch, no fastai, and 0.3 seconds for a page of help, beside the start of Python; 3 times as long where others work beside it"
    code = "import sys; from fastai_colorize.cli import main\ntry: main(sys.argv[1:])\nfinally: print([o for o in ('torch', 'fastai', 'PIL') if o in sys.modules])"
    def seconds(*args):
        began = time.perf_counter()
        res = subprocess.run([sys.executable, *args], capture_output=True, text=True)
        return time.perf_counter() - began,res
    took,res = zip(*(seconds('-c', code, *command.split(), '--help') for _ in range(3)))
    assert res[0].returncode == 0 and res[0].stdout.endswith('[]\n'), res[0]
    start = min(seconds('-c', 'pass')[0] for _ in range(3))
    assert min(took) - start < .9, (took, start)

def test_every_option_is_explained():
    for name in verbs: assert all(o.help for o in parser_of(name)._actions), name

def parser_of(verb): return next(o for o in parser()._actions if o.dest == 'command').choices[verb]

def test_demo(tmp_path, capsys):
    assert main(['demo', '--out', str(tmp_path/'demo.png')]) == 0
    sheet = Path(capsys.readouterr().out.strip().splitlines()[-1].split(': ', 1)[1])
    assert sheet == tmp_path/'demo.png' and Image.open(sheet).width > 1000

def test_colorize_goes_on_past_bad_files(tmp_path, capsys):
    album = tmp_path/'album'
    (album/'sub').mkdir(parents=True)
    Image.fromarray(data.camera()).save(album/'sub'/'camera.jpg')
    Image.fromarray(data.chelsea()).convert('L').save(album/'cat.png')
    (album/'notes.jpg').write_text('not a photo')
    whole = (album/'sub'/'camera.jpg').read_bytes()
    (album/'cut.jpg').write_bytes(whole[:len(whole)//2])
    args = ['colorize', str(album), '--out', str(tmp_path/'out')]
    assert main(args) == 1
    said = capsys.readouterr()
    assert 'notes.jpg' in said.err and 'cut.jpg' in said.err and '2 of 4' in said.err
    for f in ('sub/camera.jpg', 'cat.png'):
        rgb = np.asarray(Image.open(tmp_path/'out'/f)).astype(int)
        assert np.ptp(rgb, axis=2).mean() > 1
    assert (album/'sub'/'camera.jpg').read_bytes() == whole
    assert main(args) == 1 and '2 were there already' in capsys.readouterr().out

@pytest.mark.parametrize('args, words', [
    (['colorize', 'nowhere.jpg', '--out', 'o'], 'nowhere.jpg'),
    (['colorize', '.', '--out', 'o'], 'no photo'),
    (['train', 'nowhere', '--out', 'o'], 'nowhere'),
    (['demo', '--weights', 'nonsense', '--out', 'o'], 'nonsense'),
])
def test_wrong_arguments(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    err = capsys.readouterr().err
    assert one_sentence(err) and words in err

def test_nothing_typed(capsys):
    assert main([]) == 0
    out = capsys.readouterr()
    assert out.out.startswith('usage: fastai_colorize COMMAND') and not out.err

def test_names_and_formats_of_results(tmp_path, capsys):
    "A file for one photo; and results beside their sources, which a second run does not take for sources"
    Image.fromarray(data.chelsea()[::4,::4]).convert('L').save(tmp_path/'cat.png')
    assert main(['colorize', str(tmp_path/'cat.png'), '--out', str(tmp_path/'new'/'a.webp')]) == 0
    assert [o.name for o in (tmp_path/'new').iterdir()] == ['a.webp']
    assert Image.open(tmp_path/'new'/'a.webp').format == 'WEBP'
    beside = ['colorize', str(tmp_path), '--out', str(tmp_path), '--suffix', '_coloured', '--format', 'jpg']
    for quality,status in (('60', 'Coloured 2 of 2'), ('60', '2 were there already'), ('90', 'Coloured 2 of 2')):
        assert main([*beside, '--bs', '1', '--quality', quality]) == 0 and status in capsys.readouterr().out
    assert sorted(o.name for o in tmp_path.iterdir()) == ['cat.png', 'cat_coloured.jpg', 'new']
    assert main(['colorize', str(tmp_path), '--out', str(tmp_path/'b.jpg')]) == 1
    assert 'is the result of one photo' in one_sentence(capsys.readouterr().err) and not (tmp_path/'b.jpg').exists()

def test_folder_of_grey_photos(tmp_path, capsys):
    (tmp_path/'grey').mkdir()
    for i in range(3): Image.fromarray(data.camera()[i:]).save(tmp_path/'grey'/f'{i}.png')
    assert main(['train', str(tmp_path/'grey'), '--out', str(tmp_path/'run'), *TINY]) == 1
    assert '3 grey' in one_sentence(capsys.readouterr().err)
    assert not any((tmp_path/'run').iterdir())

def test_train_interrupt_resume_colorize(photo_folder, tmp_path):
    "Train, Ctrl-C in the middle, resume, colour a photo with the result"
    run = tmp_path/'run'
    args = ['train', photo_folder, '--out', run, '--epochs', '3', '--cache', tmp_path/'cache', *TINY]
    p = subprocess.Popen([*COMMAND, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.time() + 120
    while not (run/'state.pt').exists() and p.poll() is None and time.time() < until: time.sleep(.05)
    p.send_signal(signal.SIGINT)
    err = p.communicate(timeout=60)[1]
    assert p.returncode == 130 and '--resume' in err, err
    done = len(pd.read_csv(run/'history.csv'))
    assert 1 <= done < 3
    res = shell(*args, '--resume')
    assert res.returncode == 0 and 'PSNR' in res.stdout and 'Warning' not in res.stderr, res.stderr
    assert len(pd.read_csv(run/'history.csv')) == 3
    again = shell(*args)
    assert again.returncode == 1 and 'holds a training already' in one_sentence(again.stderr)
    assert main(['colorize', str(photo_folder/'coffee'/'0.png'), '--out', str(tmp_path/'out'), '--weights', str(run/'weights.safetensors')]) == 0
    assert Image.open(tmp_path/'out'/'0.png').size == (200, 160)

def columns(run): return set(pd.read_csv(run/'history.csv').columns)

@pytest.mark.parametrize('generator', ['resnet18', 'unet', 'attention'])
def test_train_gan(generator, photo_folder, tmp_path, capsys):
    "Every generator against the critic; the resumed history goes on"
    args = ['train', str(photo_folder), '--out', str(tmp_path/'run'), '--gan', 'cgan', '--generator', generator, '--epochs', '1', *TINY]
    assert main(args) == 0
    assert {'d_loss', 'd_real', 'd_fake', 'g_gan', 'g_l1', 'psnr', 'psnr_grey'} <= columns(tmp_path/'run')
    weights = str(tmp_path/'run'/'weights.safetensors')
    assert main([*args[:4], '--init', weights, '--epochs', '1', *SMALL]) == 1   # the folder is taken
    assert main(['train', str(photo_folder), '--out', str(tmp_path/'l1'), '--init', weights, '--epochs', '1', *SMALL]) == 0
    assert main(['train', str(photo_folder), '--out', str(tmp_path/'l2'), '--init', weights, '--generator', 'unet', *SMALL]) == 1
    assert '--init brings its own generator' in capsys.readouterr().err and not (tmp_path/'l2').exists()

@pytest.mark.parametrize('gan, options, column', [
    ('cgan', ['--gan-loss', 'lsgan', '--smooth', '.1', '--pretrain', '2', '--ema', '.9'], 'd_loss'),
    ('wgan-clip', ['--critic-steps', '2', '--clip', '.02', '--one-batch', '--generator', 'unet'], 'gap'),
    ('wgan-gp', ['--critic-steps', '2', '--lambda-gp', '5', '--lambda-ct', '2', '--decay', '1', '--precision', 'bf16'], 'ct')])
def test_games(gan, options, column, photo_folder, tmp_path):
    run = tmp_path/'run'
    assert main(['train', str(photo_folder), '--out', str(run), '--gan', gan, *options, '--epochs', '2', *TINY]) == 0
    assert column in columns(run)
    recipe = next(iter(json.loads((run/'recipe.json').read_text())['callbacks'].values()))
    assert recipe['lambda_l1'] == 100 and recipe['smooth'] == (.1 if gan == 'cgan' else 0)   # so that a training is not resumed with another

@pytest.mark.parametrize('generator', ['resnet9', 'unet'])
def test_cyclegan(generator, photo_folder, tmp_path, capsys):
    "From one folder, and from two; what was trained colours a photo"
    run,grey = tmp_path/'run',tmp_path/'grey'
    tiny = ['--gan', 'cyclegan', '--epochs', '1', '--size', '32', '--valid-pct', '0.25', '--workers', '0']
    options = ['--generator', 'unet', '--bs', '1', '--lambda-detail', '0', '--pool-size', '4'] if generator == 'unet' else ['--bs', '4', '--lambda-identity', '.5']
    assert main(['train', str(photo_folder), '--out', str(run), *options, *tiny]) == 0
    assert {'cycle_l', 'cycle_lab', 'd_grey_fake', 'detail'} <= columns(run) and (run/'samples'/'grey_000.png').exists()
    assert main(['colorize', str(photo_folder/'coffee'/'0.png'), '--out', str(tmp_path/'out'), '--weights', str(run/'weights.safetensors')]) == 0
    if generator == 'unet': return
    grey.mkdir()
    for i in range(6): Image.fromarray(data.camera()[i:]).save(grey/f'{i}.png')
    assert main(['train', str(photo_folder), '--grey', str(grey), '--out', str(tmp_path/'two'), *options, *tiny]) == 0
    assert main(['train', str(photo_folder), '--grey', str(photo_folder), '--out', str(tmp_path/'mixed'), *options, *tiny]) == 1
    assert 'taken for each other' in one_sentence(capsys.readouterr().err)

@pytest.mark.parametrize('args, words', [
    (['--clip', '.1'], 'belongs to --gan wgan-clip'),
    (['--gan', 'cgan', '--lambda-gp', '1'], 'belongs to --gan wgan-gp'),
    (['--gan', 'wgan-clip', '--clip', '0'], 'clip must be above 0'),
    (['--gan', 'wgan-gp', '--lambda-gp', '-1'], 'lambda_gp must be 0 or more'),
    (['--gan', 'wgan-gp', '--critic-steps', '0'], 'critic_steps must be at least 1'),
    (['--gan', 'cgan', '--lambda-l1', '-1'], 'lambda_l1 must be 0 or more'),
    (['--init', 'l1', '--no-pretrained'], '--init brings its own weights'),
    (['--gan', 'cgan', '--epochs', '2', '--decay', '3'], '--decay 3 is more'),
    (['--ema', '1'], 'between 0 and 1'),
    (['--gan', 'cgan', '--generator', 'unet', '--size', '48'], 'power of two')])
def test_impossible_games(args, words, photo_folder, tmp_path, capsys):
    "One sentence, before a photo is read or a folder made"
    assert main(['train', str(photo_folder), '--out', str(tmp_path/'run'), *TINY[2:], *args]) == 1
    assert words in one_sentence(capsys.readouterr().err)

def test_help_says_the_true_defaults():
    "What `--help` says of a game's options is what its Callback does, and of a training's what the game declares"
    from fastai_colorize.games.game import create_gan, games
    from fastai_colorize.learner import l1_defaults
    page = ' '.join(parser_of('train').format_help().split())
    said = {o: d for o,d in re.findall(r'--([a-z0-9-]+) [^()]*? \(default: ([^()]*)\)', page)}
    for name in games:
        rules = create_gan(name)['cbs'].rules
        for k,v in rules.items():
            if isinstance(v, float) and (flag := k.replace('_', '-')) in said: assert f'{v:g}' in said[flag].split('; ')[0] or f'{v:g}' in said[flag], (name, k)
    assert said['lr'] == '0.001; ' + '; '.join(['5e-05 for cgan, wgan-clip, wgan-gp', '1e-05 for cyclegan'])
    assert said['bs'].startswith(f"{l1_defaults()['bs']}; {games['cgan'].defaults['bs']} for cgan")
    assert said['critic-steps'] == '1; 5 for wgan-clip, wgan-gp' and said['ema'] == 'none; 0.998 for cgan'

def test_several_folders(photo_folder, tmp_path, capsys):
    "Each with its weight; a number of weights that does not fit is refused"
    folders = [str(photo_folder/o) for o in ('chelsea', 'coffee')]
    run = ['train', *folders, '--out', str(tmp_path/'run'), '--epochs', '1', *TINY]
    assert main([*run, '--folder-weights', '1', '2', '3']) == 1 and '3' in one_sentence(capsys.readouterr().err)
    assert main([*run, '--folder-weights', '1', '2']) == 0
    assert 'weights' in json.loads((tmp_path/'run'/'recipe.json').read_text())['data']

def test_run_inside_the_photos(photo_folder, capsys):
    assert main(['train', str(photo_folder), '--out', str(photo_folder/'run'), *TINY]) == 1
    assert 'would become training photos' in one_sentence(capsys.readouterr().err) and not (photo_folder/'run').exists()

@pytest.mark.parametrize('args, words', [
    *((o, 'or more') for o in (('--bs', '0'), ('--size', '8'), ('--lr', 'nan'), ('--epochs', '0'), ('--workers', '-1'))),
    (('--gan', 'chess'), 'cgan'), (('--loss', 'chess'), 'l1'), (('--precision', 'half'), 'bf16'), (('--gan', 'cgan', '--critic', 'chess'), 'patch')])
def test_values_that_are_refused(args, words, photo_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as e: main(['train', str(photo_folder), '--out', str(tmp_path/'run'), *args])
    assert e.value.code == 2 and words in capsys.readouterr().err.splitlines()[-1]
