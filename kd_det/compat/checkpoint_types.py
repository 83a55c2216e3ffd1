"""The types beside tensors that an MMEngine checkpoint is made of, and nothing more.

What MMEngine writes, found by reading the pickles of its message hub and of each of its parameter schedulers:

=========================================  =====================================================
in the file                                where from
=========================================  =====================================================
``HistoryBuffer``                          the message hub's record of every logged scalar
``numpy.ndarray``, ``_reconstruct``        the two arrays of each ``HistoryBuffer``
``numpy`` ``scalar``                       best scores (MMCV 1 wrote them too, in ``hook_msgs``)
``numpy.dtype`` and its concrete classes   both of the above
``getattr``                                ``HistoryBuffer``'s statistics, which are methods of
                                           the class; ``OneCycleLR``'s annealing function
``bytes``                                  the contents of an empty array
=========================================  =====================================================

``OrderedDict``, ``Counter`` (``MultiStepLR``) and ``_codecs.encode`` (bytes at pickle protocol 2) are on PyTorch's own
list.

NumPy's own unpickling functions are not listed. They trust the file: a forged ``dtype`` state marks plain numbers as
object pointers, and freeing such an array writes to memory of the file's choosing. ``getattr`` reaches anything.
Stand-ins of the same names check what they are asked for.
"""
from __future__ import annotations

import contextlib
import functools
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

_KINDS = 'biufU'  # boolean, integer, unsigned, real, text
_DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'U1')
_STATISTICS = ('min', 'max', 'current', 'mean')
_ANNEALING = ('_annealing_cos', '_annealing_linear')


class NotData(pickle.UnpicklingError):
    """A stand-in was asked for something that is not data; the message says what."""


def _plain_array(dtype: Any, raw: Any, shape: Any, order: str) -> np.ndarray:
    """The array held by ``raw``, its dtype made anew: no flag that a file set on it survives."""
    if not isinstance(dtype, np.dtype) or dtype.kind not in _KINDS:
        raise NotData(f'it holds a NumPy value of type {dtype!s}; only booleans, integers, real '
                      'numbers and text are data')
    if not isinstance(raw, bytes):
        raise NotData('it holds a NumPy array whose contents are not bytes')
    try:
        return np.frombuffer(raw, np.dtype(dtype.str)).reshape(shape, order=order)
    except (TypeError, ValueError) as error:
        raise NotData(f'it holds a damaged NumPy array ({error})') from None


class _Array(np.ndarray):
    """``numpy.ndarray`` while a file is read; :func:`to_numpy` makes it an ordinary one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Array:
        raise NotData('it makes a NumPy array in a way that NumPy does not write')

    def __setstate__(self, state: Any) -> None:
        try:
            _, shape, dtype, is_fortran, raw = state
        except (TypeError, ValueError):
            raise NotData('it holds a NumPy array of unknown layout') from None
        values = _plain_array(dtype, raw, shape, 'F' if is_fortran else 'C')
        super().__setstate__((1, values.shape, values.dtype, bool(is_fortran), raw))

    def __reduce__(self) -> Any:
        return np.array(self).__reduce__()  # saved again as what it is


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> _Array:
    if subtype not in (_Array, np.ndarray):
        raise NotData(f'it holds a NumPy array of class {subtype!r}')
    return np.ndarray.__new__(_Array, (0,), 'b')  # empty, as NumPy's; __setstate__ fills it


def _scalar(dtype: Any, raw: Any) -> np.generic:
    return _plain_array(dtype, raw, (1,), 'C')[0]


def _empty_bytes() -> bytes:
    return b''


class _OneCycle:
    """Names ``OneCycleParamScheduler`` for :func:`_getattr`; the real one could be called."""


def _getattr(owner: Any, name: Any) -> Any:
    from mmengine.logging import HistoryBuffer
    if owner is HistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    if owner is _OneCycle and name in _ANNEALING:
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
        return getattr(OneCycleParamScheduler, name)
    raise NotData(f'it asks for the attribute {name!r} of {owner!r}')


@functools.cache
def _safe_globals() -> tuple[Any, ...]:
    from mmengine.logging import HistoryBuffer
    return (
        HistoryBuffer,
        np.dtype,
        *(type(np.dtype(name)) for name in _DTYPES),  # without them no byte order can be set
        (_Array, 'numpy.ndarray'),
        # NumPy 1 and 2 name the module differently; a file keeps its writer's name
        (_reconstruct, 'numpy.core.multiarray._reconstruct'),
        (_reconstruct, 'numpy._core.multiarray._reconstruct'),
        (_scalar, 'numpy.core.multiarray.scalar'),
        (_scalar, 'numpy._core.multiarray.scalar'),
        (_empty_bytes, 'builtins.bytes'),
        (_OneCycle, 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'),
        (_getattr, 'builtins.getattr'),
    )


def allow() -> None:
    """Put the types on PyTorch's list for ``weights_only=True``; repeated calls change nothing."""
    try:
        names = _safe_globals()
    except ImportError:  # no MMEngine: tensors and plain containers still load
        return
    torch.serialization.add_safe_globals(list(names))


@contextlib.contextmanager
def statistics_unchanged() -> Iterator[None]:
    """Undo what unpickling a ``HistoryBuffer`` does to its class.

    MMEngine merges the statistics named in the file into ``HistoryBuffer`` itself, where a forged file could make
    ``mean`` mean ``max`` for the rest of the process.
    """
    try:
        from mmengine.logging import HistoryBuffer
    except ImportError:
        yield
        return
    HistoryBuffer()  # MMEngine registers the statistics when the first one is made, which may be what is loaded now
    before = dict(HistoryBuffer._statistics_methods)
    try:
        yield
    finally:
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(before)


def to_numpy(value: Any, done: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """``value`` with every stand-in array in it an ordinary one; dicts and lists stay themselves.

    Each object is visited once, so that nested references cannot make this take for ever. ``done`` keeps the originals
    too: an id is only theirs while they live.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)][1]
    result = value
    if isinstance(value, _Array):
        result = np.array(value)
    elif type(value) is tuple:
        items = tuple(to_numpy(item, done) for item in value)
        if any(new is not old for new, old in zip(items, value)):
            result = items
    elif isinstance(value, (dict, list)):
        done[id(value)] = value, value
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            value[key] = to_numpy(value[key], done)
    elif type(value).__name__ == 'HistoryBuffer':
        to_numpy(value.__dict__, done)
    done[id(value)] = value, result
    return result
