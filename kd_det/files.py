"""Files that appear under their final name only when they are whole, and what tells a whole checkpoint from a cut one.
"""
import contextlib
import os
import os.path as osp
import shutil
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from .errors import ConfigError

PART = '.part'
"""Suffix of a file that is being written; one that a killed process left is rubbish."""


def write_whole(path: str | os.PathLike, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a file so that ``path`` holds the old content or the new one, whole, whenever the process or machine stops.

    The content goes to ``path + '.part'`` in the same folder, is flushed to the disk and renamed; then the folder is
    flushed. Permissions are those of an ordinary new file.

    Args:
        path: the file; its folder is made if missing. A link is followed, so that what it points to is replaced.
        content: the bytes, text (UTF-8), or a function that writes to the open binary file it is given.

    Raises:
        OSError: of the kind that the system reported (disk full, no permission ...), naming the file and the free
            space; the old content is still there.
    """
    path = osp.realpath(path)
    folder = osp.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path + PART, 'wb') as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + PART, path)
        _flush_folder(folder)
    except BaseException as error:  # Ctrl-C too
        found = _system_error(error)
        free = _free_space(folder) if found else ''
        _remove_if_there(path + PART)
        if found is None:
            raise
        kept = 'what it held before is unchanged' if osp.exists(path) else 'there was none before'
        raise type(found)(found.errno, f'{found.strerror or found}: could not write {path} ({free}; {kept})') from error


def _system_error(error: BaseException) -> OSError | None:
    """The system's own complaint, also where ``torch.save`` has wrapped it in one of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    return None


def _free_space(folder: str) -> str:
    try:
        return f'{shutil.disk_usage(folder).free / 2**20:.0f} MiB free there'
    except OSError:
        return 'the folder cannot be read'


def _remove_if_there(path: str) -> None:
    with contextlib.suppress(OSError):  # never made, or the folder is gone: the reason is already being reported
        os.remove(path)


def _flush_folder(folder: str) -> None:
    """A rename is on the disk once its folder is; file systems that cannot flush folders need not."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def check_writable(flag: str, path: str | os.PathLike, folder: bool = False) -> None:
    """See that something can be written, before work that would be lost; nothing is made.

    Args:
        flag: of the command line, for the message.
        path: of the file, or of the folder that files go to; what is missing above it would be made.
        folder: which of the two.

    Raises:
        ConfigError: a folder stands where the file is to be, a file where a folder is; no permission.
    """
    place = osp.abspath(path)
    if not folder:
        if osp.isdir(place):
            raise ConfigError(f'{flag} {path}: it is a folder; the name of a file is expected')
        place = osp.dirname(place)
    while not osp.lexists(place):
        place = osp.dirname(place)
    if not osp.isdir(place):
        raise ConfigError(f'{flag} {path}: {place} is no folder; name another place, or move that file away')
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f'{flag} {path}: no permission to write into {place}; name another place')


def save_whole(obj: Any, path: str | os.PathLike) -> None:
    """``torch.save`` by way of :func:`write_whole`."""
    write_whole(path, lambda file: torch.save(obj, file))


def damage(path: str | os.PathLike) -> str | None:
    """What is wrong with a checkpoint file, in words; None if nothing is.

    ``torch.save`` writes a zip archive: its directory is at the end, so that a cut file has none, and each tensor has a
    checksum (CRC-32), so that changed bytes are found. Reads the whole file. A file of the format before PyTorch 1.6
    has no checksums and passes.
    """
    try:
        if osp.getsize(path) == 0:
            return 'it is empty'
        if not zipfile.is_zipfile(path):
            with open(path, 'rb') as file:
                begin = file.read(2)
            return 'it was cut off: the end of the archive is missing' if begin == b'PK' else None
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
        return None if member is None else f'the bytes of {member!r} in it are not those that were written (CRC-32)'
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        return f'it is damaged ({error})'
    except OSError as error:
        return f'it cannot be read ({error.strerror or error})'
