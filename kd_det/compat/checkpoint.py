"""Checkpoints are data: every route by which MMEngine loads one goes through ``weights_only=True``.

MMEngine writes a few types that PyTorch's restricted unpickler does not know, and reads files with
``torch.load`` and ``torch.hub``, whose defaults differ between versions (``torch.hub`` still runs
whatever a pickle says). :func:`install` allow-lists those types (:mod:`.checkpoint_types`) and
closes the routes, inside MMEngine only: ``torch.load`` itself stays as it is, no environment
variable is read or set. :func:`load` is the same loader for the rest of this package.
"""
from __future__ import annotations

import errno
import functools
import importlib
import os
import pickle
import re
import sys
from types import ModuleType
from typing import Any

import torch

from ..files import damage
from . import checkpoint_types
from .download import fetch

__all__ = ['UnsafeCheckpointError', 'install', 'is_installed', 'load', 'load_url']

_MODULE = 'mmengine.runner.checkpoint'

_CONVERT = """If the file is meant to be a checkpoint and you trust its author, convert it once, in
an environment that you can throw away:
    ckpt = torch.load(SRC, map_location='cpu', weights_only=False)  # runs what the file says
    torch.save({'state_dict': ckpt.get('state_dict', ckpt)}, DST)
and load DST. kd_det itself never does that."""


class UnsafeCheckpointError(pickle.UnpicklingError):
    """A checkpoint asks for more than data, or cannot be read as data. None of its code was run.

    Attributes:
        source (str | None): file or URL; None for bytes in memory.
        unsafe_global (str | None): the function or class that the file asks for, if that is what
            was wrong with it.
        reason (str): what was wrong.
    """

    def __init__(self, source: str | None, unsafe_global: str | None, reason: str) -> None:
        # all three in args: the exception survives pickling (DataLoader workers, launchers)
        super().__init__(source, unsafe_global, reason)
        self.source, self.unsafe_global, self.reason = source, unsafe_global, reason

    def __str__(self) -> str:
        name = 'a checkpoint in memory' if self.source is None else f"checkpoint '{self.source}'"
        return f'Refused to load {name}: {self.reason}. None of its code was run.\n{_CONVERT}'


def _refusal(source: str | None, error: Exception) -> UnsafeCheckpointError:
    """PyTorch's error told again without its advice, which is to switch the protection off."""
    refused = error.__context__  # what PyTorch wrapped; None where it was not wrapped
    if isinstance(refused, checkpoint_types.NotData):
        return UnsafeCheckpointError(source, None, str(refused))
    text = str(refused or error)
    asked = (re.search(r'GLOBAL (\S+) was not an allowed global', text)
             or re.search(r'unsupported GLOBAL (\S+) whose module', text))
    if asked:
        name = asked.group(1)
        return UnsafeCheckpointError(
            source, name, f"it asks for '{name}', which is none of the types that PyTorch's "
            "tensors and MMEngine's records are made of")
    held = re.search(r'(?:Can only .* but got|unrecognized function) (.+)', text)
    if held:  # made or called without being asked for by name, as NumPy's objects in arrays
        return UnsafeCheckpointError(
            source, None, f'it holds or calls {held.group(1)}, which is more than data')
    if 'TorchScript' in text:
        return UnsafeCheckpointError(source, None, 'it is a TorchScript archive: a program')
    detail = text.splitlines()[0].split('. ')[0] if text else type(error).__name__
    return UnsafeCheckpointError(
        source, None,
        f'it is damaged or cut off, or not a file that torch.save wrote by default ({detail})')


def _require_restricted_loading() -> None:
    """Before PyTorch 2.6, ``weights_only=True`` still runs TorchScript (CVE-2025-32434)."""
    release = re.match(r'(\d+)\.(\d+)', torch.__version__)
    if release and tuple(map(int, release.groups())) < (2, 6):
        raise RuntimeError(
            f'PyTorch {torch.__version__} runs code that a checkpoint carries even with '
            'weights_only=True (CVE-2025-32434), so kd_det does not load checkpoints with it. '
            'Install a newer one: pip install -U "torch>=2.6" "torchvision>=0.21"')


def _read(source: str | None, reader: Any, *args: Any, **kwargs: Any) -> Any:
    _require_restricted_loading()
    # before every load, because other code can clear PyTorch's list
    checkpoint_types.allow()
    try:
        with checkpoint_types.statistics_unchanged():
            return checkpoint_types.to_numpy(reader(*args, **kwargs, weights_only=True))
    # EOFError: the file ends too early; the others: PyTorch's unpickler on a file that is none (text)
    except (pickle.UnpicklingError, EOFError, IndexError, KeyError, AssertionError, UnicodeDecodeError) as error:
        raise _refusal(source, error) from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a jump to a place that a cut-off file does not have
            raise
        raise _refusal(source, error) from None
    except RuntimeError as error:
        # so PyTorch refuses archives that it cannot restrict (TorchScript, tar), foreign ones and cut-off files
        if not re.search('weights_only|PytorchStreamReader|in archive', str(error)):
            raise
        raise _refusal(source, error) from None


def load(path: Any, map_location: Any = 'cpu', **kwargs: Any) -> Any:
    """``torch.load`` that reads data and runs nothing.

    Args:
        path (str | os.PathLike | BinaryIO): the file.
        map_location: as for ``torch.load``.
        **kwargs: ``mmap``, ``encoding``, as for ``torch.load``.

    Returns:
        What was saved; NumPy arrays and MMEngine's ``HistoryBuffer`` included.

    Raises:
        UnsafeCheckpointError: the file asks for anything but data, or is no checkpoint.
        FileNotFoundError: there is no such file.
    """
    source = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else None
    found = _read(source, torch.load, path, map_location=map_location, **kwargs)
    # PyTorch does not compare a tensor's bytes with their checksum
    changed = damage(source) if source is not None else None
    if changed:
        raise UnsafeCheckpointError(source, None, changed)
    return found


def load_url(url: str, model_dir: str | None = None, map_location: Any = None,
             progress: bool = True, check_hash: bool = False,
             file_name: str | None = None) -> Any:
    """``torch.hub.load_state_dict_from_url`` that reads data and runs nothing.

    Arguments are those of ``torch.hub.load_state_dict_from_url``.

    Raises:
        UnsafeCheckpointError: the file asks for anything but data, or is no checkpoint.
        CheckpointMismatch: it did not arrive whole; the message names the URL.
    """
    if url.startswith(('http://', 'https://')) and not check_hash:
        changed = damage(fetch(url, model_dir, file_name))  # torch.hub finds the copy
        if changed:
            raise UnsafeCheckpointError(url, None, changed)
    return _read(url, torch.hub.load_state_dict_from_url, url, model_dir, map_location, progress,
                 check_hash, file_name)


def _load_for_mmengine(f: Any, map_location: Any = None, *, weights_only: bool | None = None,
                       **kwargs: Any) -> Any:
    del weights_only  # there is one answer, whatever the caller or the environment says
    return load(f, map_location, **kwargs)


class _SafeTorch(ModuleType):
    """``torch`` as MMEngine's checkpoint module sees it: ``load`` is ours, all else PyTorch's."""

    load = staticmethod(_load_for_mmengine)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _guard(loader: type) -> None:
    """Two things that are the same on every route of MMEngine's loader.

    - Backends hand bytes to ``torch.load``; the one who knows the name adds it to the error.
    - ``Runner.resume`` executes the text in ``meta['config']``, which MMCV 1 wrote; it is taken out. All that the
      runner looks up in it is ``gpu_ids``, which MMEngine's own checkpoints do not have.
    """
    unguarded = loader.load_checkpoint.__func__

    @functools.wraps(unguarded)
    def load_checkpoint(cls, filename, *args, **kwargs):
        try:
            found = unguarded(cls, filename, *args, **kwargs)
        except UnsafeCheckpointError as error:
            if error.source is not None:
                raise
            raise UnsafeCheckpointError(filename, error.unsafe_global, error.reason) from None
        if isinstance(found, dict) and isinstance(found.get('meta'), dict):
            found['meta'].pop('config', None)
        return found

    loader.load_checkpoint = classmethod(load_checkpoint)


def is_installed() -> bool:
    """Whether MMEngine's checkpoint routes go through :func:`load`."""
    return isinstance(getattr(sys.modules.get(_MODULE), 'torch', None), _SafeTorch)


def install() -> None:
    """Make every MMEngine route load data only.

    Covers local files, ``http(s)://``, ``torchvision://``, ``open-mmlab://``, ``mmcls://``,
    ``pavi://``, ``s3://`` and ``petrel://`` backends, and with them ``load_from``,
    ``init_cfg=dict(type='Pretrained')`` and resume, which all end in
    ``mmengine.runner.checkpoint``. A scheme that somebody registers with a loader of their own
    runs that loader as it is. Idempotent; does nothing where MMEngine is not installed.
    """
    if is_installed():
        return
    try:
        module = importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        if error.name == 'mmengine':
            return
        raise
    hub = importlib.import_module('mmengine.utils.dl_utils.hub')
    dl_utils = importlib.import_module('mmengine.utils.dl_utils')
    checkpoint_types.allow()
    for namespace in (module, hub, dl_utils):
        namespace.load_url = load_url
    if hasattr(module, '_safe_torch_load'):
        # the fork's own loader falls back to weights_only=False when the safe way fails
        module._safe_torch_load = _load_for_mmengine
    _guard(module.CheckpointLoader)
    module.torch = _SafeTorch('torch')
