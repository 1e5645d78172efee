"The paper's rows: killed and resumed, one that fails, tables from files alone, folders that do not fit."
import hashlib, json, shutil, signal, subprocess, sys
from dataclasses import replace
from functools import wraps
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from PIL import Image

from fastai_colorize.paper import run as ex
from fastai_colorize.data.coco import DownloadError
from fastai_colorize.paper.run import coco_photos, experiment
from fastai_colorize.games.game import game_options
from fastai_colorize.paper.charts import grid
from fastai_colorize.paper.results import Results, read_about
from fastai_colorize.paper.rows import VERSION, Protocol, improved, paper, paper_rules, protocols, reported, rows, stage_name, stages, trials
from fastai_colorize.paper.tables import publish, published, tables

pytestmark = pytest.mark.usefixtures('one_thread')
TINY = Protocol('tiny', 32, {'3000': (12, 4), '10000': (16, 6)}, epochs=.1, nets=dict(unet=dict(ngf=4)), pretrained=False, bf16=False, measured=64,
                changes={'wgan-clip': dict(bs=6, options=dict(critic_steps=2, one_batch=True)), 'l1': dict(l1=10), 'l1-bold': dict(l1=10), 'resnet18': dict(generator='unet')})

@pytest.fixture(scope='module')
def data(photo_folder, tmp_path_factory):
    "16 training and 6 test photos"
    folder = tmp_path_factory.mktemp('data')
    for part in ('train', 'test'): (folder/part).mkdir()
    for i,f in enumerate(sorted(photo_folder.rglob('*.png'))):
        if i < 22: shutil.copy(f, folder/('test' if i%4 == 3 or i == 21 else 'train')/f'{f.parent.name}_{f.name}')
    assert [len(list((folder/o).iterdir())) for o in ('train', 'test')] == [16, 6]
    return folder

@pytest.fixture(scope='module')
def done(data, tmp_path_factory):
    "Two rows of the paper and two trials; not to be changed"
    out,n = tmp_path_factory.mktemp('done')/'out',torch.get_num_threads()
    torch.set_num_threads(1)
    assert experiment(['cgan', 'wgan-clip', 'l1', 'l1-bold'], data, out, TINY) == {}
    torch.set_num_threads(n)
    return out

@pytest.fixture
def copied(done, tmp_path): return Path(shutil.copytree(done, tmp_path/'copied', ignore=shutil.ignore_patterns('runs', 'cache')))

def tree(folder): return {f.relative_to(folder).as_posix(): f.stat().st_mtime_ns for f in folder.rglob('*')}

def log(out, row): return pd.read_csv(out/'rows'/row/'history.csv').drop(columns=['time', 'seconds'])

def edit(file, **kw): file.write_text(json.dumps({**json.loads(file.read_text()), **kw}))

# ---- rows

def test_the_paper_in_a_table():
    "Typed from the paper once more"
    table = [('CGAN', 'unet', 'cgan', 2e-4, 20, 10, '3000'), ('Attention-CGAN', 'attention', 'cgan', 2e-4, 20, 20, '3000'), ('CGAN+ResNet18', 'resnet18', 'cgan', 2e-4, 20, 20, '3000'),
            ('CGAN+ResNet18', 'resnet18', 'cgan', 2e-4, 20, 10, '10000'), ('WGAN-clip', 'unet', 'wgan-clip', 5e-5, 32, 20, '3000'), ('WGAN-GP', 'unet', 'wgan-gp', 5e-5, 32, 20, '3000'),
            ('CycleGAN', 'resnet9', 'cyclegan', 1e-5, 1, 20, '3000')]
    assert [(o.title, o.generator, o.game, o.lr, o.bs, o.epochs, o.photos) for o in paper.values()] == table
    assert protocols['full'].size == 256 and protocols['full'].photos == {'3000': (2400, 600), '10000': (8000, 2000)} and not protocols['full'].changes and protocols['full'].epochs == 1
    assert [len(stages(o, protocols['full'])) for o in paper] == [1, 1, 2, 2, 1, 1, 1]
    assert reported['CycleGAN'] == dict(psnr=(6.03, 11.12, 1.69), ssim=(-.01, .41, -.36)) and {o.title for o in paper.values()} - set(reported) == {'CGAN'}

def test_headings_say_what_is_run():
    "Epochs as they are run, not as the row has them"
    small = protocols['small']
    ran = {k: stages(k, small)[-1]['epochs'] for k,o in small.changes.items() if 'epochs' in o}
    assert all(f'{k} with epochs = {v}' in str(small) for k,v in ran.items()) and ran['cyclegan'] == 1

def test_trainings_keep_their_names():
    "Under which a folder of results of the first release goes on"
    names = {f'{p.name}/{o}': stage_name(stages(o, p)) for p in protocols.values() for o in rows}
    assert len(names) == 74 and names['full/cgan'] == 'unet-cgan-c54118f5' and names['small/gan'] == 'resnet18-cgan-71a4f3ef'
    assert hashlib.sha1(json.dumps(names).encode()).hexdigest()[:8] == '3f8feccf'

def test_nothing_is_left_to_defaults():
    "The paper's rules say every number of a game; its networks and optimizers are those of the game"
    for o in paper.values():
        said = {*paper_rules[o.game], *o.options} | ({'grey', 'generator', 'size'} if o.game == 'cyclegan' else set())
        assert set(game_options(o.game)) - said == set(), o.game
    rules = paper_rules['cgan']
    assert (rules['gan_loss'], rules['lambda_l1'], rules['lr_mult']) == ('bce', 100, 1)

def test_improved_rows():
    "Each of the paper's paired rows, by our recipe; the U-Net learns L1 once for all its games"
    assert [o.rstrip('+') for o in improved] == ['cgan', 'attention', 'resnet18', 'wgan-clip', 'wgan-gp']
    for k,o in improved.items(): assert (o.generator, o.game, o.options) == (paper[k[:-1]].generator, paper[k[:-1]].game, paper[k[:-1]].options)
    first = {k: stage_name(stages(k, protocols['small'])[:1]) for k in improved}
    assert first['cgan+'] == first['wgan-clip+'] == first['wgan-gp+'] != first['attention+']
    assert first['resnet18+'] == stage_name(stages('l1', protocols['small']))

def test_trials_change_one_thing():
    for name,o in trials.items():
        base = trials[name.partition('-')[0]]
        odd = [k for k,v in vars(o).items() if v != getattr(base, k) and k != 'title']
        assert len(odd) == (name not in ('l1', 'gan')), name
        if 'options' in odd: assert len(o.options) == 1
        for p in protocols.values(): json.dumps(stages(name, p))

# ---- runs

PROGRAM = '''
import os, signal, sys, torch
from test_paper import TINY, experiment, ex
torch.set_num_threads(1)
def kill(self):
    if self.epoch == 1 and hasattr(self.learn, 'conditional_gan'): os.kill(os.getpid(), signal.SIGKILL)
ex.EpochTime.after_validate = kill
experiment('resnet18', sys.argv[1], sys.argv[2], TINY)
'''

def test_killed_and_resumed(data, tmp_path, capsys):
    "The process dies in the second training of a row; the same call ends as if it had not, to the last digit"
    p = subprocess.run([sys.executable, '-W', 'ignore', '-c', PROGRAM, data, tmp_path/'parts'], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert p.returncode == -signal.SIGKILL, p.stderr
    assert not list(tmp_path.glob('parts/rows/*')) and len(list(tmp_path.glob('parts/runs/*/state.pt'))) == 1
    for o in ('parts', 'whole'): assert experiment('resnet18', data, tmp_path/o, TINY) == {}
    pd.testing.assert_frame_equal(log(tmp_path/'parts', 'resnet18'), log(tmp_path/'whole', 'resnet18'))
    assert log(tmp_path/'whole', 'resnet18').stage.tolist() == ['l1', 'l1', 'cgan', 'cgan']
    assert (tmp_path/'parts'/'rows'/'resnet18'/'photos.csv').read_text() == (tmp_path/'whole'/'rows'/'resnet18'/'photos.csv').read_text()
    assert not list(tmp_path.rglob('state.pt'))

def test_results_of_the_first_release(data, tmp_path, capsys):
    "Its rows are read, and the same command goes on where it was stopped: after the first of four epochs"
    out = Path(shutil.copytree(Path(__file__).parent/'fixtures'/'results_0.1.0', tmp_path/'out'))
    before = tree(out/'rows'/'cgan')
    assert experiment(['cgan', 'resnet18'], data, out, replace(TINY, nets=dict(unet=dict(ngf=2)))) == {}
    assert tree(out/'rows'/'cgan') == before and len(list((out/'runs').iterdir())) == 2
    want = pd.read_csv(out/'expected_resnet18.csv').drop(columns=['time', 'seconds'])
    pd.testing.assert_frame_equal(log(out, 'resnet18'), want, rtol=1e-3)
    assert all(o in (out/'tables.md').read_text(encoding='utf-8') for o in ('| CGAN | 12 / 4 |', '| CGAN+ResNet18 | 12 / 4 |'))

def test_done_is_skipped(done, copied, data, monkeypatch):
    "Neither photos nor networks are touched"
    monkeypatch.setattr(ex, 'run_row', None)
    before = tree(copied/'rows')
    assert experiment(['cgan', 'l1', 'wgan-clip', 'l1-bold', 'cgan'], data/'nowhere', copied, TINY) == {}
    assert tree(copied/'rows') == before

def test_one_failing_row(data, tmp_path, monkeypatch, capsys):
    "The next row runs, the reason is told, and the next call tries again"
    real = ex.learner.train
    @wraps(real)
    def broken(*args, gan, **kw):
        if gan == 'wgan-clip': raise RuntimeError('CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1')
        return real(*args, gan=gan, **kw)
    monkeypatch.setattr(ex.learner, 'train', broken)
    out = tmp_path/'out'
    assert experiment(['wgan-clip', 'cgan'], data, out, TINY) == {'wgan-clip': 'CUDA error: out of memory'}
    words = (out/'tables.md').read_text(encoding='utf-8')
    assert '* wgan-clip (WGAN-clip): CUDA error: out of memory\n' in words and '| CGAN |' in words and 'Not run yet: attention, resnet18' in words
    assert 'Traceback' in (out/'failed'/'wgan-clip.txt').read_text()
    monkeypatch.setattr(ex.learner, 'train', real)
    assert experiment(['wgan-clip', 'cgan'], data, out, TINY) == {}
    assert 'Failed' not in (out/'tables.md').read_text(encoding='utf-8') and not list((out/'failed').iterdir())

def test_every_row_fails(data, tmp_path, capsys):
    few = replace(TINY, photos={'3000': (12, 7)})
    failed = experiment(['cgan', 'resnet18-10000'], data, tmp_path/'out', few)
    assert 'needs 7 photos' in failed['cgan'] and 'there are 6' in failed['cgan'] and 'no set of 10000' in failed['resnet18-10000']
    assert not (tmp_path/'out'/'tables.md').exists()
    with pytest.raises(ValueError, match='no finished row'): tables(tmp_path/'out')

def test_trainings_are_shared(done):
    "A trial that only measures otherwise trains nothing"
    assert sorted(o.name.rpartition('-')[0] for o in (done/'runs').iterdir()) == ['resnet18-l1', 'unet-cgan', 'unet-wgan-clip']
    a,b = [pd.read_csv(done/'rows'/o/'photos.csv').set_index(['colorizer', 'photo']).colourfulness[o] for o in ('l1', 'l1-bold')]
    assert b.mean() > 1.05*a.mean()
    chains = [stages(o, protocols['small'])[:1] for o in ('gan', 'gan-slow', 'l1')]
    assert chains[0] == chains[1] == chains[2]

def test_grey_photos_are_left_out(data, tmp_path, capsys):
    shutil.copytree(data, tmp_path/'data')
    for part in ('train', 'test'):
        f = sorted((tmp_path/'data'/part).iterdir())[1]
        Image.open(f).convert('L').save(f)
    tinted = np.full((300,300,3), (120,122,121), np.uint8)   # not exactly grey, and no colour photo either
    tinted[:150] += 60
    f = sorted((tmp_path/'data'/'test').iterdir())[2]
    Image.fromarray(tinted).save(f)
    assert experiment('cgan', tmp_path/'data', tmp_path/'out', TINY) == {}
    assert '3 grey' in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path/'out'/'left_out.csv')) == 3
    assert f.name not in (tmp_path/'out'/'rows'/'cgan'/'photos.csv').read_text()
    row = json.loads((tmp_path/'out'/'rows'/'cgan'/'row.json').read_text())
    assert (row['train'], row['n']) == (11, 2)
    assert '| CGAN | 11 / 2 |' in (tmp_path/'out'/'tables.md').read_text(encoding='utf-8')

def test_photos_in_both_folders_are_named(data, tmp_path):
    "By content, before hours of training"
    shutil.copytree(data, tmp_path/'data')
    test = sorted((tmp_path/'data'/'test').iterdir())
    shutil.copyfile(sorted((tmp_path/'data'/'train').iterdir())[1], test[2])
    match = rf'^1 of the 4 photos is also among the training photos, by content \({test[2].name}\)'
    with pytest.warns(UserWarning, match=match):
        ex._good_photos('3000', TINY, tmp_path/'data', tmp_path, {})

# ---- tables

def test_results_that_were_not_written_yet(tmp_path):
    "Stopped before its first tables: the folder holds states to resume, and nobody is told to delete it"
    (tmp_path/'experiment.json').write_text(json.dumps(dict(version=VERSION, protocol={}, seed=42)))
    with pytest.raises(ValueError, match='table.csv is missing or cannot be read: if there are finished rows, `tables`'): Results.load(tmp_path)

def test_tables_from_files_alone(copied, monkeypatch):
    "Each number by hand from the row's own files, in a folder that holds nothing else"
    for o in copied.iterdir():
        if o.is_file() and o.name != 'experiment.json': o.unlink()
    res = tables(copied)
    words = (copied/'tables.md').read_text(encoding='utf-8')
    assert {o.name for o in copied.iterdir() if o.is_file()} == {'experiment.json', 'tables.md', 'table.csv', 'history.csv', 'loss.png', 'time.png', 'colours_rows.png', 'colours_trials.png', 'grid_test.jpg', 'grid_sample.jpg'}
    for row,title in (('cgan', 'CGAN'), ('wgan-clip', 'WGAN-clip')):
        photos = pd.read_csv(copied/'rows'/row/'photos.csv').set_index('colorizer')
        for m in ('psnr', 'ssim'):
            own,ab,grey = photos.loc[row, m],photos.loc[row, f'{m}_ab'],photos.loc['grey', m]
            cells = [own.mean(), own.mean() - grey.mean(), own.max(), own.min(), ab.mean(), ab.max(), ab.min()]
            line = next(o for o in words.splitlines() if o.startswith(f'| {title} | 12 / 4 | {own.mean():.3f}'))
            got = [o.strip() for o in line.split('|')[3:10]]
            assert np.allclose([float(o) for o in got], cells, atol=2e-3)
            assert [o.strip() for o in line.split('|')[10:13]] == [f'{v:.2f}' for v in reported[title][m]] if title in reported else ['']*3
        hist = pd.read_csv(copied/'rows'/row/'history.csv')
        assert f'| {hist.valid_loss.iloc[-1]:.3f} | {hist.seconds.median():.1f} |' in words
    for o in ('| grey |', '| mean colour |', '| l1: our L1 |', 'Not run yet: attention, resnet18, resnet18-10000, wgan-gp, cyclegan'): assert o in words
    heads = [o for o in words.splitlines() if o.startswith('## ')]
    assert len(heads) == 5 and all('tiny protocol, n = 4' in o for o in heads)
    lines = [o for o in words.splitlines() if o.startswith('tiny protocol: trained at 32 px')]
    assert len(lines) == 5 and all(x in o for o in lines for x in ('10% of the epochs', 'measured at 64 px', '1 CPU thread of', 'minutes of training', 'torch', 'seed 42', 'wgan-clip with bs = 6, critic_steps = 2'))
    assert Image.open(copied/'grid_test.jpg').width == 125 + 4*96 and Image.open(copied/'grid_sample.jpg').width == 125 + 7*96
    assert res.table.set_index('row').n['cgan'] == 4

def test_the_grid_shows_the_photos(copied, data):
    "Its first line is the first test photos"
    sheet = grid(copied, 'test')
    f = sorted((data/'test').iterdir())[0]
    want = np.asarray(Image.open(f).convert('RGB').resize((96,96)), float)
    got = np.asarray(sheet.crop((125, 34, 221, 130)), float)
    assert np.abs(want - got).mean() < 12
    grey = np.asarray(sheet.crop((125, 130, 221, 226)))
    assert np.ptp(grey, 2).max() == 0

@pytest.mark.parametrize('harm, words', [
    (lambda o: edit(o/'experiment.json', version=0), 'copied is of version 0 of the rows, and this is version 1'),
    (lambda o: edit(o/'experiment.json', seed=7), 'was made with seed 42, and now it is seed 7|was made with seed 7, and now it is seed 42'),
    (lambda o: (o/'experiment.json').write_text('{'), 'experiment.json is missing or cannot be read'),
    (lambda o: (o/'experiment.json').unlink(), 'not a folder of results'),
    (lambda o: (o/'experiment.json').write_text('[]'), 'experiment.json is missing or cannot be read'),
    (lambda o: (o/'rows'/'cgan'/'row.json').write_text('[]'), 'cgan is no whole row'),
    (lambda o: edit(o/'rows'/'cgan'/'row.json', version=0), 'cgan is of version 0'),
    (lambda o: edit(o/'rows'/'cgan'/'row.json', settings=dict(json.loads((o/'rows'/'cgan'/'row.json').read_text())['settings'], lr=1.)), 'was made with lr = 1.0, and the row now says 0.0002'),
    (lambda o: edit(o/'rows'/'cgan'/'row.json', settings=3), 'cgan is no whole row'),
    (lambda o: (o/'rows'/'cgan'/'row.json').unlink(), 'cgan is no whole row'),
    (lambda o: (o/'rows'/'cgan').rename(o/'rows'/'dcgan'), 'dcgan was made with title'),
])
def test_folders_that_do_not_fit(copied, data, harm, words):
    "Refused by the run and by the tables, in one sentence, and nothing is written"
    harm(copied)
    before = tree(copied)
    for call in (lambda: experiment('attention', data, copied, TINY), lambda: tables(copied)):
        with pytest.raises(ValueError, match=words) as e: call()
        assert '\n' not in str(e.value)
    assert tree(copied) == before

@pytest.mark.parametrize('name', ['table.csv', 'history.csv', 'test.png', 'sample.png'])
def test_a_row_that_lacks_a_file(copied, name):
    (copied/'rows'/'cgan'/name).unlink()
    before = tree(copied)
    with pytest.raises(ValueError, match=f'cgan.{name} is missing'): tables(copied)
    assert tree(copied) == before

def test_an_old_failure_beside_a_finished_row(copied):
    "A process killed between the two leaves both; the row counts"
    (copied/'failed').mkdir()
    (copied/'failed'/'l1.txt').write_text('Traceback\n\nout of memory\n')
    assert 'Failed' not in tables(copied).markdown()

def test_other_photos(copied, data, tmp_path, capsys):
    shutil.copytree(data, tmp_path/'data')
    f = sorted((tmp_path/'data'/'test').iterdir())[2]
    f.rename(f.with_name('b.png'))
    failed = experiment('attention', tmp_path/'data', copied, TINY)
    assert 'b.png here. Choose another folder' in failed['attention'] and 'are not those of the results' in failed['attention']
    assert not (copied/'rows'/'attention').exists()

def test_wrong_calls(data, done, tmp_path):
    with pytest.raises(ValueError, match="no row 'dcgan'.*cyclegan.*gan-ema"): experiment('dcgan', data, tmp_path/'out')
    with pytest.raises(ValueError, match="one of full, small, not 'large'"): experiment('all', data, tmp_path/'out', 'large')
    with pytest.raises(ValueError, match='would become photographs'): experiment('cgan', data, data/'train'/'out')
    with pytest.raises(ValueError, match='protocol tiny, and now it is protocol tiny with other sizes'): experiment('attention', data, done, replace(TINY, size=64))
    with pytest.raises(ValueError, match='protocol tiny, and now it is protocol small'): experiment('attention', data, done, 'small')
    assert not (tmp_path/'out').exists()

# ---- photographs, and results that travel

def test_coco(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(ex, 'coco_annotations', lambda folder, split: folder/f'{split}.json')
    monkeypatch.setattr(ex, 'coco_subset', lambda ann, dest, n, min_size: asked.append((ann.name, dest.name, n, min_size)))
    coco_photos(tmp_path, protocols['full'])
    assert asked == [('train2017.json', 'train', 8000, 256), ('val2017.json', 'test', 2000, 256)]
    def gone(*args, **kw): raise DownloadError('3 of 8 pictures could not be downloaded', [], {})
    monkeypatch.setattr(ex, 'coco_subset', gone)
    with pytest.raises(OSError, match='3 of 8 pictures'): experiment('all', tmp_path/'coco', tmp_path/'out', coco=True)

def test_publish(done, copied, tmp_path):
    for o in ('fastai_colorize', 'nbs'): (tmp_path/'repo'/o).mkdir(parents=True)
    to = publish(done, tmp_path/'repo')
    assert {o for o in tree(tmp_path/'repo') if '.' in o} == {f'fastai_colorize/results/tiny/{o}' for o in ('experiment.json', 'table.csv', 'history.csv', 'grid_sample.jpg')}
    assert sum(o.stat().st_size for o in (tmp_path/'repo').rglob('*.*')) < 150_000
    tables(copied)
    assert Results.load(to).markdown() == Results.load(copied).markdown()   # files keep five digits
    before = tree(tmp_path/'repo')
    shutil.rmtree(copied/'rows'/'wgan-clip')
    (copied/'failed').mkdir()
    (copied/'failed'/'wgan-clip.txt').write_text('out of memory\n')   # a failure takes no finished row's place
    with pytest.raises(ValueError, match='has the row wgan-clip, which .* lacks'): publish(copied, tmp_path/'repo')
    with pytest.raises(FileNotFoundError, match='not the root of the repository'): publish(done, tmp_path)
    assert tree(tmp_path/'repo') == before
    edit(to/'experiment.json', version=0)
    with pytest.raises(ValueError, match='of version 0'): publish(done, tmp_path/'repo')

def test_published_results_can_be_read():
    "What the package carries is of this version"
    for name,res in published().items():
        assert res.about['protocol']['name'] == name and f'{name} protocol' in res.markdown()
