"""Files appear whole or not at all."""
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from kd_det.files import damage, save_whole, write_whole


def test_content_is_written_as_given(tmp_path):
    write_whole(tmp_path / 'new' / 'text', 'Grüße')
    assert (tmp_path / 'new' / 'text').read_text(encoding='utf-8') == 'Grüße'
    write_whole(tmp_path / 'bytes', b'\x00\xff')
    write_whole(tmp_path / 'bytes', lambda file: file.write(b'second'))
    assert (tmp_path / 'bytes').read_bytes() == b'second'
    save_whole(dict(a=torch.arange(3)), tmp_path / 'c.pth')
    assert torch.equal(torch.load(tmp_path / 'c.pth', weights_only=True)['a'], torch.arange(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['bytes', 'c.pth', 'new']


def test_permissions_are_those_of_an_ordinary_file_and_links_are_followed(tmp_path):
    (tmp_path / 'plain').write_text('x')
    write_whole(tmp_path / 'ours', 'x')
    assert (tmp_path / 'ours').stat().st_mode == (tmp_path / 'plain').stat().st_mode
    (tmp_path / 'link').symlink_to(tmp_path / 'plain')
    write_whole(tmp_path / 'link', 'y')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'plain').read_text() == 'y'


@pytest.mark.parametrize('fail', ['write', 'fsync', 'replace', 'interrupt'])
def test_a_failure_leaves_the_old_content_and_no_rubbish(fail, tmp_path, monkeypatch):
    path = tmp_path / 'c.pth'
    save_whole('old', path)

    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def writer(file):
        file.write(b'half')
        if fail == 'interrupt':
            raise KeyboardInterrupt
        if fail == 'write':
            no_space()
    if fail in ('fsync', 'replace'):
        monkeypatch.setattr(os, fail, no_space)
    with pytest.raises(KeyboardInterrupt if fail == 'interrupt' else OSError) as error:
        write_whole(path, writer)
    assert torch.load(path) == 'old' and [p.name for p in tmp_path.iterdir()] == ['c.pth']
    if fail != 'interrupt':
        assert error.value.errno == errno.ENOSPC
        assert 'No space left' in str(error.value) and str(path) in str(error.value) and 'MiB free' in str(error.value)


def test_a_real_limit_of_the_system_is_reported_through_torch_save(tmp_path):
    """``torch.save`` raises a RuntimeError about its archive when a write fails; the system's reason must come out."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
        with pytest.raises(OSError, match=r'too large.*c\.pth.*there was none before') as error:
            save_whole(torch.zeros(1 << 18), tmp_path / 'c.pth')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.errno == errno.EFBIG and not list(tmp_path.iterdir())


def test_killed_while_writing(tmp_path):
    path = tmp_path / 'c.pth'
    save_whole('old', path)
    code = f'''
        import os, signal, sys, types
        sys.modules['kd_det'] = package = types.ModuleType('kd_det')  # the stack is not imported for this
        package.__path__ = [{str(Path(__file__).parents[1] / 'kd_det')!r}]
        from kd_det.files import write_whole
        def writer(file):
            file.write(b'half'), file.flush(), os.kill(os.getpid(), signal.SIGKILL)
        write_whole({str(path)!r}, writer)'''
    done = subprocess.run([sys.executable, '-c', textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL and torch.load(path) == 'old'
    save_whole('new', path)  # the rubbish is in nobody's way
    assert torch.load(path) == 'new' and [p.name for p in tmp_path.iterdir()] == ['c.pth']


def test_damage_is_found(tmp_path):
    path = tmp_path / 'c.pth'
    save_whole(dict(w=torch.arange(5000.)), path)
    assert damage(path) is None
    whole = path.read_bytes()
    for cut in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert damage(path), f'cut to {cut} of {len(whole)} bytes'
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:])
    assert 'CRC' in damage(path)  # one bit within a tensor
    torch.load(path, weights_only=True)  # and PyTorch would have loaded it
    assert 'cannot be read' in damage(tmp_path / 'none.pth')
    torch.save(dict(w=torch.zeros(2)), path, _use_new_zipfile_serialization=False)
    assert damage(path) is None
