"""Serves ``mmcv._ext`` where MMCV was installed without its compiled ops.

MMCV's wrappers (``mmcv.ops.*``) reach every kernel through the extension module ``mmcv._ext``. ``mmcv-lite`` and source
installs do not have it, so ``import mmcv.ops`` fails there. :func:`install` adds an import finder that answers for this
one name with a module built from :mod:`kd_det.compat.ops`. The finder stands last in ``sys.meta_path``: whatever a real
file would answer comes first, so a compiled extension is never shadowed.
"""
from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

MODULE = 'mmcv._ext'


class OpNotServedError(NotImplementedError):
    """An op of ``mmcv._ext`` was called that kd_det does not serve."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The op '{name}' of mmcv._ext was called, but MMCV is installed without compiled ops "
            'and kd_det does not serve this one. Install a compiled MMCV in place of mmcv-lite '
            "(official wheels: pip install -U openmim && mim install 'mmcv>=2.0.0,<2.2.0'; recent "
            'PyTorch and a C++ compiler: pip install --no-build-isolation --no-cache-dir '
            'onedl-mmcv), or use a model without it. '
            f'If kd_det should serve it, report the op name {name}.')
        self.op = name


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finder and loader of the served module."""

    def find_spec(self, fullname: str, path: Any = None,
                  target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != MODULE:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin='kd_det.compat.ops')

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None  # the default module object

    def exec_module(self, module: ModuleType) -> None:
        from .ops import SERVED
        vars(module).update(SERVED)

        def missing(name: str) -> Any:
            # MMCV asserts hasattr() for each op at import; private and dunder names stay absent
            # so that hasattr(module, '__path__') and similar probes tell the truth.
            if name.startswith('_'):
                raise AttributeError(f'module {MODULE!r} has no attribute {name!r}')

            def not_served(*args: Any, **kwargs: Any) -> Any:
                raise OpNotServedError(name)

            not_served.__name__ = not_served.__qualname__ = name
            return not_served

        module.__getattr__ = missing  # type: ignore[method-assign]
        module.__doc__ = 'Ops of MMCV served by kd_det.compat.ops (torchvision and PyTorch).'


def backend() -> str:
    """Which implementation ``mmcv._ext`` resolves to, without importing MMCV.

    Returns:
        str: ``'compiled'`` (a real extension exists), ``'torchvision'`` (served by kd_det), ``'none'`` (MMCV without
        ops, :func:`install` not called) or ``'missing'`` (no MMCV).
    """
    loaded = sys.modules.get(MODULE)
    if loaded is not None:
        ours = isinstance(getattr(loaded.__spec__, 'loader', None), _Finder)
        return 'torchvision' if ours else 'compiled'
    try:
        mmcv = importlib.util.find_spec('mmcv')
    except ValueError:  # a stand-in 'mmcv' in sys.modules whose __spec__ is None
        mmcv = None
    if mmcv is None or mmcv.submodule_search_locations is None:
        return 'missing'
    served = False
    for finder in list(sys.meta_path):
        if isinstance(finder, _Finder):
            served = True
        elif hasattr(finder, 'find_spec') and finder.find_spec(
                MODULE, mmcv.submodule_search_locations, None):
            return 'compiled'
    return 'torchvision' if served else 'none'


def install() -> str:
    """Make ``import mmcv._ext`` work; does nothing where a compiled one exists. Idempotent.

    Returns:
        str: ``'compiled'``, ``'torchvision'`` or ``'missing'``, see :func:`backend`.
    """
    found = backend()
    if found == 'none':
        sys.meta_path.append(_Finder())
        found = 'torchvision'
    return found
