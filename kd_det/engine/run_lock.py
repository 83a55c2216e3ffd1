"""One run per work directory."""
import contextlib
import fcntl
import os
import os.path as osp
from collections.abc import Iterator

from ..errors import ConfigError
from .distributed import is_first_process

NAME = '.lock'


@contextlib.contextmanager
def work_directory(path: str) -> Iterator[None]:
    """Hold a work directory; the system lets go of it when the process ends, however it ends.

    Rank 0 holds it for all. On network file systems it keeps runs of other machines out as far as the file system
    carries ``flock`` between them (NFS of Linux does, some cluster file systems do not).

    Raises:
        ConfigError: another run is in it.
    """
    if not is_first_process():
        yield
        return
    handle = _held(path)
    try:
        yield
    except BaseException:
        if os.listdir(path) == [NAME]:  # refused before anything was written: no trace is left
            os.remove(osp.join(path, NAME))
            os.rmdir(path)
        raise
    finally:
        os.close(handle)


def _held(path: str) -> int:
    """An open, locked file in the folder, which is made if missing."""
    lock = osp.join(path, NAME)
    while True:
        os.makedirs(path, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.pread(handle, 100, 0).decode(errors='replace').strip()
            os.close(handle)
            raise ConfigError(f'--work-dir {path}: another run is training in it ({who}); wait for it, or give another '
                              'directory') from error
        with contextlib.suppress(FileNotFoundError):
            if osp.samestat(os.stat(lock), os.fstat(handle)):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f'process {os.getpid()} on {os.uname().nodename}\n'.encode(), 0)
                return handle
        os.close(handle)  # a refused run removed it in between
