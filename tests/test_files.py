"Whole or not at all: what is synced and when, and every way in which writing fails"
import errno, io, os, stat, subprocess, sys, textwrap, threading
from pathlib import Path

import pytest

from fastai_colorize.base import files
from fastai_colorize.base.files import (check_outside, error_line, versions, write_bytes, write_json, write_text,
                                        writing, writing_folder)

def only(folder): return [o.name for o in folder.iterdir()]

@pytest.fixture
def calls(monkeypatch):
    "What is asked of the system, in order: ('fsync', what), ('replace', name)"
    seen,real_sync,real_replace = [],os.fsync,os.replace
    def fsync(fd):
        seen.append(('fsync', 'folder' if stat.S_ISDIR(os.fstat(fd).st_mode) else os.fstat(fd).st_size))
        real_sync(fd)
    def replace(a, b):
        seen.append(('replace', Path(b).name))
        real_replace(a, b)
    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(os, 'replace', replace)
    return seen

def test_bytes_are_on_the_disk_before_the_name(tmp_path, calls):
    write_bytes(tmp_path/'a.bin', b'12345')
    assert calls == [('fsync', 5), ('replace', 'a.bin'), ('fsync', 'folder')]

@pytest.mark.parametrize('write,want', [(lambda f: write_bytes(f, memoryview(b'\0\1')), b'\0\1'), (lambda f: write_text(f, 'Grün\n'), 'Grün\n'.encode()),
                                        (lambda f: write_json(f, dict(a=[1, None])), b'{\n "a": [\n  1,\n  null\n ]\n}')])
def test_contents(tmp_path, write, want):
    for f in (tmp_path/'new'/'deep'/'a', str(tmp_path/'new'/'b')):
        assert write(f) == Path(f) and Path(f).read_bytes() == want
        assert write(f) == Path(f) and Path(f).read_bytes() == want       # over the old one
    assert sorted(only(tmp_path/'new')) == ['b', 'deep']

def test_whoever_reads_sees_the_old_or_the_new(tmp_path):
    f,stop,seen = tmp_path/'a.txt',threading.Event(),set()
    write_text(f, 'a'*100_000)
    def read():
        while not stop.is_set():
            text = f.read_text()
            seen.add((text[:1], len(text), len(set(text))))
    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30): write_text(f, 'ab'[i%2]*100_000)
    stop.set(), reader.join()
    assert seen and all(n == 100_000 and kinds == 1 for _,n,kinds in seen)

def test_two_writers_do_not_meet(tmp_path):
    with writing(tmp_path/'a') as one, writing(tmp_path/'a') as two:
        assert one != two and {one.name[0], two.name[0]} == {'.'} and one.parent == tmp_path
        one.write_text('one'), two.write_text('two')
    assert (tmp_path/'a').read_text() == 'one' and only(tmp_path) == ['a']

# ---- failures: the old file stays, nothing else does, and one sentence says it

def sentence(e, path):
    text = str(e.value)
    assert text.startswith(f'{path} cannot be written: ') and text.endswith('.') and '\n' not in text and text.count(str(path)) == 1 and '.part' not in text
    assert error_line(e.value) == text
    return text

class Full(io.RawIOBase):
    "A file on a disk with room for three bytes"
    def __init__(self, f): self.f = f
    def __enter__(self): return self
    def __exit__(self, *args): self.f.close()
    def write(self, data):
        self.f.write(bytes(data[:3]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

@pytest.mark.parametrize('old', [None, b'old'])
def test_full_disk(tmp_path, monkeypatch, old):
    f = tmp_path/'a'
    if old: f.write_bytes(old)
    monkeypatch.setattr(files, 'open', lambda p,mode: Full(open(p, mode)), raising=False)
    with pytest.raises(OSError, match='No space left') as e: write_bytes(f, b'the new one')
    sentence(e, f)
    assert e.value.errno == errno.ENOSPC
    assert only(tmp_path) == ['a']*bool(old) and (not old or f.read_bytes() == old)

@pytest.mark.parametrize('name', ['fsync', 'replace'])
def test_full_disk_is_found_late(tmp_path, monkeypatch, name):
    "Some file systems say so when the bytes are synced"
    (tmp_path/'a').write_text('old')
    def fail(*args): raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match='quota') as e: write_text(tmp_path/'a', 'new')
    sentence(e, tmp_path/'a')
    assert only(tmp_path) == ['a'] and (tmp_path/'a').read_text() == 'old'

def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch):
    "Network drives and Windows: the file is there"
    real = os.open
    def refuse(path, *args, **kwargs):
        if os.path.isdir(path): raise PermissionError(errno.EACCES, 'no folders')
        return real(path, *args, **kwargs)
    monkeypatch.setattr(os, 'open', refuse)
    assert write_text(tmp_path/'a', 'new').read_text() == 'new' and only(tmp_path) == ['a']

def test_name_too_long(tmp_path):
    for f in (tmp_path/('x'*300), tmp_path/('y'*300)/'a'):
        with pytest.raises(OSError, match='too long') as e: write_text(f, 'text')
        assert str(e.value).startswith(f'{f} cannot be written: ')
    assert only(tmp_path) == []

def test_a_file_in_the_way(tmp_path):
    (tmp_path/'file').touch()
    with pytest.raises(OSError) as e: write_text(tmp_path/'file'/'a', 'text')
    assert 'cannot be written: ' in str(e.value)
    (tmp_path/'folder').mkdir()
    with pytest.raises(IsADirectoryError, match='cannot be written: Is a directory.') as e: write_text(tmp_path/'folder', 'text')
    sentence(e, tmp_path/'folder')
    assert sorted(only(tmp_path)) == ['file', 'folder']

def test_unwritable_folder(tmp_path, monkeypatch):
    if os.getuid() == 0:                                          # root may write anywhere: somebody refuses it all the same
        def refuse(p, mode): raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(p))
        monkeypatch.setattr(files, 'open', refuse, raising=False)
    else: tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match='Permission denied') as e: write_text(tmp_path/'a', 'text')
    sentence(e, tmp_path/'a')
    tmp_path.chmod(0o755)
    assert only(tmp_path) == []

@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError, MemoryError])
def test_other_errors_pass_through(tmp_path, error):
    (tmp_path/'a').write_text('old')
    with pytest.raises(error) as e:
        with writing(tmp_path/'a') as part:
            part.write_text('half')
            raise error('as it was')
    assert str(e.value) == 'as it was' and only(tmp_path) == ['a'] and (tmp_path/'a').read_text() == 'old'

def test_the_file_that_is_at_fault_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'cannot be written: No such file or directory \(.*source\)\.$'):
        with writing(tmp_path/'a') as part: part.write_bytes((tmp_path/'source').read_bytes())
    assert only(tmp_path) == []

def test_killed_in_the_middle(tmp_path):
    "Not even Python's own cleaning runs: the old file is there, and the half one is hidden"
    (tmp_path/'a').write_text('old')
    code = f"""
        import os
        from fastai_colorize.base.files import writing
        with writing({str(tmp_path/'a')!r}) as part:
            part.write_text('half')
            os.kill(os.getpid(), 9)"""
    subprocess.run([sys.executable, '-c', textwrap.dedent(code)])
    assert (tmp_path/'a').read_text() == 'old'
    rest = set(only(tmp_path)) - {'a'}
    assert len(rest) == 1 and rest.pop().startswith('.')

# ---- the rest

def test_outside(tmp_path):
    (tmp_path/'photos'/'sub').mkdir(parents=True)
    (tmp_path/'link').symlink_to(tmp_path/'photos')
    for out in ('photos', 'photos/', 'photos/sub/new', 'link/new', 'other/../photos/new'):
        with pytest.raises(ValueError) as e: check_outside(tmp_path/out, tmp_path/'else', tmp_path/'photos', why='it would be read again.')
        assert str(e.value) == f"{tmp_path/out} lies inside {tmp_path/'photos'}: it would be read again."
    for out in ('photos2', 'results', '.'): check_outside(tmp_path/out, tmp_path/'photos', why='no')

def test_versions():
    from importlib.metadata import version
    assert versions('fastai_colorize', 'no-such-package') == {'fastai_colorize': version('fastai_colorize'), 'no-such-package': None}

def test_error_lines():
    from fastai_colorize.base.photos import PhotoError
    worker = ValueError('Caught X.\nOriginal Traceback (most recent call last):\n  File "a.py"\nfastai_colorize.base.headers.MissingPhotoError: cat.jpg: gone.')
    assert [error_line(o) for o in (PhotoError('a.jpg', 'is empty.'), worker, ValueError('\n one \ntwo'), KeyboardInterrupt())] == ['a.jpg: is empty.', 'cat.jpg: gone.', 'one', 'KeyboardInterrupt']

# ---- whole folders

def test_folder_is_whole_or_not_there(tmp_path):
    (tmp_path/'empty').mkdir()
    for name in ('new', 'empty', 'deep/er'):
        with writing_folder(tmp_path/name) as part:
            write_text(part/'a', 'text')
            assert not list((tmp_path/name).glob('*'))
        assert (tmp_path/name/'a').read_text() == 'text'
    with pytest.raises(OSError, match='not empty|exists'):
        with writing_folder(tmp_path/'new') as part: write_text(part/'b', 'text')
    for error in (KeyboardInterrupt, FileNotFoundError):
        with pytest.raises(error) as e:
            with writing_folder(tmp_path/'never') as part: raise error('as it was')
        assert str(e.value) == 'as it was'
    assert sorted(only(tmp_path)) == ['deep', 'empty', 'new'] and only(tmp_path/'new') == ['a']

def test_folder_of_a_killed_process(tmp_path):
    "It is removed by the next one that writes there; that of a living process stays"
    code = ('import os\nfrom fastai_colorize.base.files import *\n'
            f"with writing_folder({str(tmp_path/'out')!r}) as p:\n"
            "    write_text(p/'a', 'half')\n    os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, '-c', code])
    assert len(only(tmp_path)) == 1 and files.remove_leftovers(tmp_path) == 1 and only(tmp_path) == []
    subprocess.run([sys.executable, '-c', code])
    with writing_folder(tmp_path/'one') as alive, writing_folder(tmp_path/'two') as part:
        assert alive.exists() and part.exists()
    assert sorted(only(tmp_path)) == ['one', 'two']

def test_folder_is_synced_before_and_after_it_has_its_name(tmp_path, calls, monkeypatch):
    real = os.rename
    monkeypatch.setattr(os, 'rename', lambda a,b: (calls.append(('rename', Path(b).name)), real(a, b)))
    with writing_folder(tmp_path/'out') as part: write_text(part/'a', '12')
    assert calls == [('fsync', 2), ('replace', 'a'), ('fsync', 'folder'),
                     ('fsync', 'folder'), ('rename', 'out'), ('fsync', 'folder')]
