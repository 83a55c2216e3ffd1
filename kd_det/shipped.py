"""Where the configs and study files that ship with kd_det lie, and their names; MMDetection's configs by theirs.

They are in ``kd_det/.mim``, where MMEngine looks for the configs of a package that is named ``kd_det::...``: in a
checkout links to the repository's own folders, in a wheel copies that its build made.
"""
import difflib
import fnmatch
import os.path as osp
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from .errors import ConfigError

FOLDER = Path(__file__).parent / '.mim'
PREFIX = 'kd_det::'
MMDET = 'mmdet::'


def register() -> None:
    """Make ``kd_det::`` in ``_base_`` mean the configs beside this file, and find ``mmdet::`` at once; idempotent.

    MMEngine's own rule asks the installed distribution where a package lies, which is wrong for an editable
    installation, and puts ``_scope_='kd_det'`` into every dict of the base, a scope in which MMDetection's names are
    not found. For ``mmdet::`` it parses MMDetection's hundred model pages each time, to find the file that the name
    spells out.
    """
    if hasattr(Config._get_cfg_path, 'knows_kd_det'):
        return
    original = Config._get_cfg_path

    def path_of(cfg_path: str, filename: str) -> tuple[str, str | None]:
        found = config_file(cfg_path)
        scope = None
        if cfg_path.startswith(MMDET) and found != cfg_path:
            scope = 'mmdet'
        elif not cfg_path.startswith(PREFIX):
            found, scope = original(cfg_path, filename)
        if osp.realpath(found) == osp.realpath(filename):  # MMEngine would read it a thousand times
            raise ConfigError(f'config {filename!r}: its _base_ {cfg_path!r} leads back to itself')
        return found, scope
    path_of.knows_kd_det = True
    Config._get_cfg_path = staticmethod(path_of)


def config_file(path: str) -> str:
    """The file that a config's name means.

    Args:
        path: ``kd_det::<folder>/<name>.py``; ``mmdet::<folder>/<name>.py`` of the installed MMDetection; or
            ``configs/<folder>/<name>.py``, as the shipped configs name their teachers: below the current directory if
            it is there, else the shipped one. Anything else comes back unchanged.

    Raises:
        ConfigError: ``kd_det::`` with a name that does not ship, ``mmdet::`` with one that MMDetection does not have.
    """
    if not isinstance(path, str):
        raise ConfigError(f'_base_: found {path!r}; the name of a config file, or a list of them, is expected')
    if osp.exists(path):
        return path
    for prefix in (PREFIX, 'configs/'):
        if path.startswith(prefix):
            found = FOLDER / 'configs' / path.removeprefix(prefix)
            if found.is_file():
                return str(found)
    if path.startswith(MMDET) and _mmdet_configs().is_dir():
        found = _mmdet_configs() / path.removeprefix(MMDET)
        if not found.is_file():
            names = [each.name for each in found.parent.glob('*.py')] or [
                each.name for each in _mmdet_configs().iterdir()]
            close = difflib.get_close_matches(found.name if found.parent.is_dir() else found.parent.name, names, n=3)
            raise ConfigError(f'config {path!r}: the installed MMDetection has no such config'
                              + (f'; did you mean {" or ".join(close)}?' if close else ''))
        return str(found)
    if path.startswith(PREFIX):
        raise ConfigError(f'config {path!r} does not ship; kd-det configs lists those that do')
    return path


@cache
def _mmdet_configs() -> Path:
    """The folder that MMDetection's installation brings its configs in; a folder that is not there without MMDetection.
    """
    spec = find_spec('mmdet')
    return Path(spec.origin if spec and spec.origin else '').parent / '.mim' / 'configs'


def shipped_configs(pattern: str = '') -> list[str]:
    """Names of the shipped configs, ``kd_det::...``, that contain ``pattern`` or match it where it has ``*`` or ``?``.
    """
    root = FOLDER / 'configs'
    names = sorted(path.relative_to(root).as_posix() for path in root.glob('*/*.py') if path.parent.name != '_base_')
    wanted = pattern.removeprefix(PREFIX)
    if not any(sign in wanted for sign in '*?'):
        wanted = f'*{wanted}*'
    return [PREFIX + name for name in names if fnmatch.fnmatchcase(name, wanted)]


def description(name: str) -> str:
    """The comment that a shipped config's file begins with, in one line."""
    lines = []
    with open(config_file(name), encoding='utf-8') as file:
        for line in file:
            if not line.startswith('#'):
                break
            lines.append(line.lstrip('#').strip())
    return ' '.join(lines)


def study_file(name: str) -> str:
    """A study file: a path, or the name of one that ships (``faster_rcnn_bccd``)."""
    shipped = FOLDER / 'studies' / f'{name.removesuffix(".json")}.json'
    return str(shipped) if not osp.isfile(name) and shipped.is_file() else name
