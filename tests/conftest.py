"Photographs that every test may use: cut-outs of those that come with scikit-image."
import matplotlib
matplotlib.use('Agg')

import pytest
from PIL import Image
from skimage import data

@pytest.fixture(scope='session')
def photo_folder(tmp_path_factory):
    "24 small colour photographs in three subfolders"
    folder = tmp_path_factory.mktemp('photos')
    for name in ('astronaut', 'chelsea', 'coffee'):
        (folder/name).mkdir()
        im = Image.fromarray(getattr(data, name)())
        for i in range(8): im.crop((25*i, 12*i, 25*i + 200, 12*i + 160)).save(folder/name/f'{i}.png')
    return folder
