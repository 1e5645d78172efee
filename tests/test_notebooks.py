"Each notebook runs from top to bottom; notebook, module and README say the same."
import importlib.util, json, re
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.export import nb_export
from nbdev.test import test_nb as run_notebook

cfg = get_config(Path(__file__).parent)
root = cfg.config_path
notebooks = sorted(Path(o) for o in nbglob(root/'nbs'))
ids = [o.stem for o in notebooks]

@pytest.mark.parametrize('nb', notebooks, ids=ids)
def test_runs(nb):
    ok,_ = run_notebook(nb, skip_flags=cfg.tst_flags.split())
    assert ok

@pytest.mark.parametrize('nb', notebooks, ids=ids)
def test_module_is_in_sync(nb, tmp_path):
    default = re.search(r'#\| default_exp (\w+)', nb.read_text(encoding='utf-8'))
    if default is None: pytest.skip('exports nothing')
    nb_export(nb, lib_path=tmp_path)
    name = f'{default[1]}.py'
    code = lambda f: re.sub(r'^# %% .*$', '# %%', f.read_text(encoding='utf-8'), flags=re.M)  # cell headers hold the relative path
    assert code(tmp_path/name) == code(cfg.lib_path/name), f"{name} differs from {nb.name}: run `nbdev-export`"

@pytest.mark.parametrize('nb', notebooks, ids=ids)
def test_outputs_are_there_and_small(nb):
    cells = [c for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    assert any(c['outputs'] for c in cells), f"{nb.name} has no outputs: run `nbdev-test --save`"
    assert nb.stat().st_size < 400_000
    assert not any(o['output_type'] == 'error' for c in cells for o in c['outputs'])

def test_readme_is_in_sync():
    spec = importlib.util.spec_from_file_location('readme', root/'.ci'/'readme.py')
    mod = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mod)
    assert (root/'README.md').read_text(encoding='utf-8') == mod.readme(), "README.md differs from nbs/index.ipynb: run `python .ci/readme.py`"
