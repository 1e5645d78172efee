"Tables of ours and of others; folders that do not fit, photos that do not open, disks that are full."
import shutil
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from torch import nn

from fastai_colorize.base.color import split_lab
from fastai_colorize.base.metrics import kid
from fastai_colorize.base.photos import PhotoError
from fastai_colorize.nets.weights import packaged_weights
from fastai_colorize.train import contents
from fastai_colorize.use import evaluate as ev, report
from fastai_colorize.use.colorizer import Colorizer
from fastai_colorize.use.evaluate import CURVE, evaluate, evaluate_folder, mean_ab
from fastai_colorize.use.peers import by_colorizer, by_pictures
from skimage.metrics import peak_signal_noise_ratio

class Warm(nn.Module):
    def forward(self, l): return torch.cat([l*0 + .05, l*0 + .15], 1)

@pytest.fixture
def photos(photo_folder, tmp_path):
    "Six photos of 200×160 in two folders"
    for o in ('astronaut', 'coffee'):
        for i in range(3):
            (tmp_path/'photos'/o).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo_folder/o/f'{i}.png', tmp_path/'photos'/o/f'{i}.png')
    return tmp_path/'photos'

@pytest.fixture
def pictures(photos, tmp_path):
    "The same photos by another program: JPEGs of the same size, and reddish"
    for f in photos.rglob('*.png'):
        to = (tmp_path/'peer'/f.relative_to(photos)).with_suffix('.jpg')
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.blend(Image.open(f), Image.new('RGB', (200,160), (200,60,60)), .2).save(to, quality=95)
    return tmp_path/'peer'

def tree(folder): return {f.relative_to(folder).as_posix(): f.stat().st_mtime_ns for f in folder.rglob('*')}

def test_a_folder_of_pictures(photos, pictures, tmp_path):
    "Every number by hand, from the files"
    res = evaluate_folder(photos, tmp_path/'new'/'out', pictures=pictures, size=64, bs=4)
    out = tmp_path/'new'/'out'
    assert sorted(o.name for o in out.iterdir()) == ['curve.png', 'photos.csv', 'plot.png', 'sheet_peer.jpg', 'table.csv', 'table.md']
    assert [o.name for o in out.parent.iterdir()] == ['out']
    csv = pd.read_csv(out/'photos.csv').set_index(['colorizer', 'photo'])
    square = lambda f: np.asarray(Image.open(f).resize((64,64), Image.Resampling.BICUBIC))
    for f in sorted(photos.rglob('*.png')):
        rel = f.relative_to(photos)
        want = peak_signal_noise_ratio(square(f), square((pictures/rel).with_suffix('.jpg')))
        assert csv.psnr['peer', rel.as_posix()] == pytest.approx(want, abs=2e-5)
    table = pd.read_csv(out/'table.csv').set_index('colorizer')
    assert list(table.index) == ['original', 'grey', 'mean colour', 'peer']
    for k in ('psnr', 'ssim', 'psnr_ab', 'ssim_ab', 'delta_e', 'delta_cf'):
        assert table[k]['peer'] == pytest.approx(csv[k]['peer'].mean(), abs=2e-5)
        assert table[f'{k}_max']['grey'] == pytest.approx(csv[k]['grey'].max(), abs=2e-5)
    assert table.delta_cf_mean['peer'] == pytest.approx(abs(table.colourfulness['peer'] - table.colourfulness['original']), abs=2e-5)
    assert table.colourfulness['grey'] == 0 and table.delta_e['mean colour'] < table.delta_e['grey']
    words = (out/'table.md').read_text(encoding='utf-8')
    assert '# peer on photos' in words and '64×64' in words and 'Means over 6 photos' in words and 'the mean ab of these originals' in words
    for name in ('grey', 'mean colour', 'peer'): assert f'| {name} | {table.psnr[name]:.3f} |' in words
    assert Image.open(out/'sheet_peer.jpg').size[0] > 800 and len(res.failed) == 0

def test_pictures_already_square_or_with_two_suffixes(photos, pictures):
    one,two = sorted(pictures.rglob('*.jpg'))[:2]
    Image.open(one).resize((64,64)).save(one)
    two.rename(two.with_name('1.png.jpg'))
    assert len(evaluate(photos, dict(peer=by_pictures(pictures, photos, 64)), size=64).photos) == 4*6

def test_a_photo_that_lies_on_its_side(photos, pictures):
    exif = Image.Exif(); exif[0x112] = 6
    side = photos/'coffee'/'0.png'
    im = Image.open(side)
    side.unlink()
    im.transpose(Image.Transpose.ROTATE_90).save(side.with_suffix('.jpg'), exif=exif, quality=95)
    res = evaluate(photos, dict(peer=by_pictures(pictures, photos, 64)), size=64).photos.set_index(['colorizer', 'photo'])
    assert res.psnr['peer', 'coffee/0.jpg'] > res.psnr['peer'].min() - 1

@pytest.mark.parametrize('change,words', [
    (lambda o: (o/'coffee'/'1.jpg').unlink(), r'lacks pictures for 1 of the 6 photos in .*: coffee/1.png'),
    (lambda o: (o/'coffee'/'1.jpg').rename(o/'coffee'/'one.jpg'), r'lacks pictures for 1 of the 6 photos in .*: coffee/1.png'),
    (lambda o: shutil.copy(o/'coffee'/'1.jpg', o/'coffee'/'7.jpg'), r'match no original in .* \(1 of them\): coffee/7.jpg'),
    (lambda o: Image.open(o/'coffee'/'1.jpg').save(o/'coffee'/'1.png'), r'more than one picture of coffee/1.png: 1.jpg, 1.png'),
    (lambda o: Image.new('RGB', (200,161)).save(o/'coffee'/'1.jpg'), r'\(1 of them\): coffee/1.jpg 200×161 for 200×160'),
    (lambda o: [f.unlink() for f in o.rglob('*.jpg')], 'no photos in this folder'),
])
def test_folders_that_do_not_fit(photos, pictures, tmp_path, change, words):
    change(pictures)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=words): evaluate_folder(photos, tmp_path/'out', pictures=pictures, size=64)
    assert tree(tmp_path) == before

def test_pictures_of_the_first_originals_only(photos, pictures, tmp_path):
    for f in sorted(pictures.rglob('*.jpg'))[4:]: f.unlink()
    assert evaluate_folder(photos, tmp_path/'out', pictures=pictures, size=64, n=4).photos.photo.nunique() == 4
    with pytest.raises(ValueError, match='lacks pictures for 1 of the 5 photos'): evaluate_folder(photos, tmp_path/'more', pictures=pictures, size=64, n=5)

def test_mean_colour_of_what_is_measured(photos, pictures):
    plain = evaluate(photos, {}, size=64).table()
    for i in range(3): Image.open(photos/'coffee'/'1.png').convert('L').save(photos/f'grey_{i}.png')
    scans = evaluate(photos, {}, size=64)
    assert len(scans.failed) == 3 and scans.table().loc['mean colour', 'psnr'].tolist() == plain.loc['mean colour', 'psnr'].tolist()

def test_names_of_pictures(photos, pictures, tmp_path, monkeypatch):
    "A sheet for each folder, however alike their names are; the folder in which one stands"
    names = ('run_a_2', 'run-a', 'run a', 'run_a', 'пёс')
    for o in names: shutil.copytree(pictures, tmp_path/o)
    evaluate_folder(photos, tmp_path/'out', pictures=[tmp_path/o for o in names], size=64, n=2)
    assert {o.name for o in (tmp_path/'out').glob('sheet*')} == {'sheet_run_a_2.jpg', 'sheet_run-a.jpg', 'sheet_run_a.jpg', 'sheet_run_a_3.jpg', 'sheet_пёс.jpg'}
    monkeypatch.chdir(pictures)
    assert list(evaluate_folder(photos, tmp_path/'here', pictures='.', size=64, n=2).colorizers) == ['peer']

def test_settings_that_need_weights(photos, pictures, tmp_path):
    for o in (dict(saturations=[2.]), dict(render_sizes=[64]), dict(curve=True)):
        with pytest.raises(ValueError, match='are of weights'): evaluate_folder(photos, tmp_path/'out', pictures=pictures, size=64, **o)

def test_device_is_that_of_the_network_too(photos, tmp_path, monkeypatch):
    seen,real = [],ev.Colorizer.from_pretrained
    monkeypatch.setattr(ev.Colorizer, 'from_pretrained', lambda weights, device=None: (seen.append(device), real(weights, device=device))[1])
    evaluate_folder(photos, tmp_path/'out', size=64, n=1, device='cpu')
    assert seen == ['cpu']

def test_two_originals_of_one_name(photos, pictures):
    Image.open(photos/'coffee'/'1.png').save(photos/'coffee'/'1.bmp')
    with pytest.raises(ValueError, match=r'same name but for the suffix, so that coffee/1.jpg'): by_pictures(pictures, photos)

def test_results_are_never_overwritten(photos, pictures, tmp_path):
    out = tmp_path/'out'
    out.mkdir()
    evaluate_folder(photos, out, pictures=pictures, size=64)             # an empty folder is no result
    before = tree(out)
    with pytest.raises(FileExistsError, match='exists already'): evaluate_folder(photos, out, pictures=pictures, size=64)
    (tmp_path/'file').write_text('mine')
    with pytest.raises(FileExistsError, match='exists already'): evaluate_folder(photos, tmp_path/'file', pictures=pictures, size=64)
    for bad in (photos, photos/'out', pictures/'a'/'b'):
        with pytest.raises(ValueError, match='lies inside'): evaluate_folder(photos, bad, pictures=pictures, size=64)
    with pytest.raises(OSError, match='cannot be written'):
        evaluate_folder(photos, tmp_path/'file'/'out', pictures=pictures, size=64)
    assert tree(out) == before and (tmp_path/'file').read_text() == 'mine'

@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_nothing_is_left_of_half_a_result(photos, pictures, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs): raise error
    monkeypatch.setattr(report, 'contact_sheet', fail)                       # the last thing that is written
    before = tree(tmp_path)
    with pytest.raises(type(error)): evaluate_folder(photos, tmp_path/'out', pictures=pictures, size=64)
    assert tree(tmp_path).keys() == before.keys()

def test_bad_photos_are_named_and_the_others_measured(photos, pictures, tmp_path):
    "A text, a cut photo and a grey one among the originals, and a broken picture of a good photo"
    (photos/'text.png').write_text('no photo')
    cut = photos/'astronaut'/'0.png'
    cut.write_bytes(cut.read_bytes()[:3000])
    Image.open(photos/'coffee'/'2.png').convert('L').save(photos/'coffee'/'2.png')
    broken = pictures/'coffee'/'0.jpg'
    broken.write_bytes(broken.read_bytes()[:1000])
    res = evaluate_folder(photos, tmp_path/'out', pictures=pictures, size=64, bs=2)
    reasons = dict(res.failed.itertuples(index=False))
    assert reasons.keys() == {'text.png', 'astronaut/0.png', 'coffee/2.png', 'coffee/0.png'}
    assert reasons['coffee/0.png'].startswith(f'peer: {broken}: broken')   # whose picture it is
    assert 'not an image' in reasons['text.png'] and 'broken' in reasons['astronaut/0.png'] and 'grey' in reasons['coffee/2.png']
    assert res.photos.groupby('colorizer').photo.nunique().eq(3).all()         # the same three in every row
    words = (tmp_path/'out'/'table.md').read_text(encoding='utf-8')
    assert 'Left out, 4 photos' in words and 'Means over 3 photos' in words and '∞' not in words

def test_none_can_be_measured(photos, tmp_path):
    class Broken(nn.Module):
        def forward(self, l): return torch.cat([l, l], 1)*float('nan')
    with pytest.raises(ValueError, match='None of the 6 photos .* not finite'): evaluate(photos, dict(broken=by_colorizer(Colorizer(Broken()))), size=64)
    with pytest.raises(PhotoError, match='no such file or folder'): evaluate(tmp_path/'none', {})
    with pytest.raises(ValueError, match='is a file'): evaluate(photos/'coffee'/'0.png', {})
    for wrong in (dict(size=8), dict(bs=0), dict(n=0)):
        with pytest.raises(ValueError, match='size must be'): evaluate(photos, {}, **wrong)

def test_nothing_but_baselines(photos):
    assert evaluate(photos, {}, size=64, n=2).table().index.tolist() == ['original', 'grey', 'mean colour']

def test_mean_colour_of_a_training_set(photos, tmp_path):
    (tmp_path/'train').mkdir()
    Image.new('RGB', (40,40), (180,120,60)).save(tmp_path/'train'/'a.png')
    res = evaluate(photos, dict(brown=lambda files,true: [Image.fromarray(np.full((64,64,3), (180,120,60), np.uint8))]*len(files)), train=tmp_path/'train', size=64)
    assert 'the mean ab of 1 training photos' in ' '.join(res.about)
    ab = split_lab(torch.tensor([180,120,60], dtype=torch.uint8)[:,None,None])[1].flatten()
    assert mean_ab([tmp_path/'train'/'a.png']).tolist() == pytest.approx(ab.tolist(), abs=1e-6)
    assert (res.table()['psnr', 'mean']['mean colour'] > res.table()['psnr', 'mean']['brown'])      # the same colour with the right L

def run_folder(train, valid, folder):
    "Weights with the table of their training beside them"
    folder.mkdir()
    part = lambda files: SimpleNamespace(items=files)
    dls = SimpleNamespace(train=None, train_ds=part(train), valid_ds=part(valid))
    contents.write_table(contents.photo_table(dls), folder/'photos.csv')
    return shutil.copy(packaged_weights('l1'), folder/'weights.safetensors')

def test_photos_of_the_training_are_noticed(photos, photo_folder, tmp_path):
    "Copied, renamed and with another date; those that chose the weights were not learnt"
    learnt = sorted((photo_folder/'chelsea').iterdir())
    weights = run_folder(learnt[:4], [photos/'coffee'/'0.png'], tmp_path/'run')
    evaluate_folder(photos, tmp_path/'clean', weights, render_sizes=[32], size=64)
    assert 'training of' not in (tmp_path/'clean'/'table.md').read_text(encoding='utf-8')
    for f,n in zip(learnt, ('holiday.png', 'IMG_1.JPG', 'deep/c.png', 'z.png')):
        (photos/n).parent.mkdir(exist_ok=True)
        shutil.copyfile(f, photos/n)
    Image.open(learnt[5]).save(photos/'other.jpg')                       # the same pixels, or nearly, in another file
    match = (r'^4 of the 11 photos are also in the training of .*weights.safetensors, by content '
             r'\(IMG_1.JPG, c.png, holiday.png, …\)')
    with pytest.warns(UserWarning, match=match) as seen:
        res = evaluate_folder(photos, tmp_path/'out', weights, render_sizes=[32], size=64)
    said = [str(o.message) for o in seen if 'training of' in str(o.message)]
    assert len(said) == 1 and said[0] in (tmp_path/'out'/'table.md').read_text(encoding='utf-8')
    assert res.photos.photo.nunique() == 11
    with pytest.warns(UserWarning, match=r'^3 of the 11 photos are also among the training photos'):
        res = evaluate(photos, {}, train=learnt[:3], size=64)
    assert 'among the training photos' in res.about[-1]
    shutil.copytree(photo_folder/'chelsea', tmp_path/'train')
    (tmp_path/'train'/'0.png').rename(tmp_path/'train'/'renamed.png')
    with pytest.warns(UserWarning, match='^4 of the 11'): evaluate(photos, {}, train=tmp_path/'train', size=64)

def test_weights_sizes_and_saturations(photos, tmp_path):
    res = evaluate_folder(photos, tmp_path/'out', 'l1', render_sizes=[32, 64], saturations=[0, 1.2], size=64, n=3)
    assert list(res.colorizers) == ['render 32, saturation 0', 'render 32, saturation 1.2', 'render 64, saturation 0', 'render 64, saturation 1.2']
    t = res.table()
    assert t.loc['render 32, saturation 0'].drop('delta_cf_mean').tolist() == pytest.approx(t.loc['grey'].drop('delta_cf_mean').tolist(), abs=1e-6)
    assert len(list((tmp_path/'out').glob('sheet_*.jpg'))) == 4
    with pytest.raises(FileNotFoundError, match='no weights named'): evaluate_folder(photos, tmp_path/'no', 'nonsense')
    with pytest.raises(ValueError, match='saturation must be'): evaluate_folder(photos, tmp_path/'no', 'l1', saturations=[-1])
    assert not (tmp_path/'no').exists()

class Toy:
    about = 'mean colours of nine fields'
    def __call__(self, rgb): return nn.functional.adaptive_avg_pool2d(rgb.float(), 3).flatten(1)/255

def test_fid_kid_and_lpips_have_their_columns(photos, pictures, tmp_path):
    far = lambda p,t: (p.float() - t.float()).abs().mean((1,2,3))
    with pytest.warns(UserWarning, match='FID of 6 pictures'):
        res = evaluate(photos, dict(peer=by_pictures(pictures, photos, 64)), size=64, lpips=far, inception=Toy())
    t = res.table().xs('mean', axis=1, level=1)
    for o in ('fid', 'kid', 'lpips'): assert t[o]['peer'] < t[o]['grey'] and pd.isna(t[o]['original'])
    words = res.markdown('x')
    assert 'FID: mean colours of nine fields; n = 6, fewer than 5,000' in words and '| LPIPS | FID | KID |' in words
    assert f"| {t.kid['peer']:.3f} ± {t.kid_std['peer']:.3f} |" in words and 'KID × 1000' in words
    feats = lambda o: torch.stack([Toy()(ev.as_tensor(Image.open(f).resize((64,64), Image.Resampling.BICUBIC))[None])[0] for f in sorted(o.rglob('*.*'))])
    assert (t.kid['peer'], t.kid_std['peer']) == pytest.approx(kid(feats(pictures), feats(photos)), rel=1e-4)
    res.save(tmp_path)
    table = pd.read_csv(tmp_path/'table.csv').set_index('colorizer')
    assert table.kid['peer'] == pytest.approx(t.kid['peer'], abs=2e-5) and table.kid_std['peer'] == pytest.approx(t.kid_std['peer'], abs=2e-5)
    panels = [o.get_ylabel().split()[0] for o in res.plot_curve().axes]
    assert [o.strip(',') for o in panels] == ['PSNR', 'LPIPS', 'KID']

def test_kid_alone(photos, pictures, tmp_path, monkeypatch):
    "Without FID, which warns of few pictures"
    monkeypatch.setattr(ev, 'Inception', lambda device: Toy())
    res = evaluate_folder(photos, tmp_path/'out', pictures=pictures, size=64, kid=True)
    assert list(res.distances) == ['kid', 'kid_std'] and 'FID' not in (tmp_path/'out'/'table.md').read_text(encoding='utf-8').replace('KID', '')

def test_the_curve_and_its_peers(photos, pictures, tmp_path):
    "Every model, peer and factor is a point, at the numbers of the table"
    again = shutil.copy(packaged_weights('l1'), tmp_path/'mine.safetensors')
    res = evaluate_folder(photos, tmp_path/'out', ['l1', again], pictures, [32], [3.], curve=True, size=64, n=3)
    factors = [*CURVE, 3.]
    assert {k: list(o) for k,o in res.curves.items()} == {'l1, render 32': factors, 'mine, render 32': factors}
    assert list(res.colorizers) == [f'{w}, render 32, saturation {s:g}' for w in ('l1', 'mine') for s in factors] + ['peer']
    t = res.table().xs('mean', axis=1, level=1)
    lines = {o.get_label(): o[0].get_xydata() for o in res.plot_curve().axes[0].containers}
    assert lines.keys() >= {'l1, render 32', 'mine, render 32', 'peer'} and sum(map(len, lines.values())) >= 2*7 + 1 + 1
    want = t.loc[list(res.curves['mine, render 32'].values()), ['colourfulness', 'psnr']].to_numpy()
    np.testing.assert_allclose(lines['mine, render 32'], want)
    assert t.colourfulness[list(res.curves['l1, render 32'].values())].is_monotonic_increasing
    assert len(list((tmp_path/'out').glob('sheet_*.jpg'))) == 15

def test_two_weights_of_one_name(photos, tmp_path):
    files = [tmp_path/o/'weights.safetensors' for o in 'ab']
    for f in files:
        f.parent.mkdir()
        shutil.copy(packaged_weights('l1'), f)
    res = evaluate_folder(photos, tmp_path/'out', [files[0], files[1], files[0]], render_sizes=[32], size=64, n=2)
    assert list(res.colorizers) == [f'{f}, render 32' for f in files]

def test_best_median_worst(photos, tmp_path, monkeypatch):
    rows = {}
    monkeypatch.setattr(report, 'contact_sheet', lambda o,path: rows.update(o))
    res = evaluate(photos, dict(warm=by_colorizer(Colorizer(Warm()))), size=64)
    res.sheet('warm', tmp_path/'s.jpg')
    gain = res.gain('warm')
    assert [o.split(',')[0] for o in rows] == [f'{k}: {gain.index[i]}' for k,i in (('best', 0), ('best', 1), ('median', 2), ('median', 3), ('worst', 4), ('worst', 5))]
    assert gain.is_monotonic_decreasing
