"A crash image: the power fails while results are written, and comes back (`benchmarks/power_cut.py`, four cuts)"
import importlib.util, subprocess, sys
from pathlib import Path

import pytest

file = Path(__file__).parent.parent/'benchmarks'/'power_cut.py'
spec = importlib.util.spec_from_file_location('power_cut', file)
power_cut = importlib.util.module_from_spec(spec)
spec.loader.exec_module(power_cut)

@pytest.fixture(scope='module', autouse=True)
def mounts():
    if why := power_cut.why_not(): pytest.skip(f'no crash image: {why}')

def cuts(*more):
    cmd = [sys.executable, '-W', 'ignore', file, '--n', '4', '--seed', '0', *more]
    return subprocess.run(cmd, capture_output=True, text=True)

def test_nothing_is_empty_or_torn():
    "And the same command makes what is missing"
    res = cuts()
    assert res.returncode == 0 and "'torn': 0" in res.stdout and 'in 0 of them' in res.stdout, res.stdout + res.stderr

def test_without_sync_it_would_be():
    "The same cuts find empty results where `fsync` does nothing: what the test above looks for is there to be seen"
    res = cuts('--without-sync')
    assert res.returncode == 0 and 'is empty' in res.stdout, res.stdout + res.stderr
