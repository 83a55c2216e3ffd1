"""Where the configs and study files that ship with kd_det lie, and their names.

They are in ``kd_det/.mim``, where MMEngine looks for the configs of a package that is named ``kd_det::...``: in a checkout
links to the repository's own folders, in a wheel copies that its build made.
"""
import fnmatch
import os.path as osp
from collections.abc import Callable
from pathlib import Path

import mmengine.config.config as mmengine_config
import mmengine.hub.hub as mmengine_hub
from mmengine.config import utils as mmengine_configs

from .errors import ConfigError

FOLDER = Path(__file__).parent / '.mim'
PREFIX = 'kd_det::'


def register() -> None:
    """Make ``kd_det::`` in ``_base_`` mean the configs beside this file; idempotent.

    MMEngine asks the installed distribution where a package lies, which is wrong for an editable installation: its
    distribution lies in ``site-packages``, its package in the checkout.
    """
    mmengine_configs.MODULE2PACKAGE.setdefault('kd_det', 'kd_det')
    for module in (mmengine_config, mmengine_hub):
        if not hasattr(module.get_installed_path, 'knows_kd_det'):
            module.get_installed_path = _with_kd_det(module.get_installed_path)


def _with_kd_det(get_installed_path: Callable[[str], str]) -> Callable[[str], str]:
    def path_of(package: str) -> str:
        return str(FOLDER.parent) if package == 'kd_det' else get_installed_path(package)
    path_of.knows_kd_det = True
    return path_of


def config_file(path: str) -> str:
    """The file that a config's name means.

    Args:
        path: ``kd_det::<folder>/<name>.py``; or ``configs/<folder>/<name>.py``, as the shipped configs name their teachers:
            below the current directory if it is there, else the shipped one. Anything else comes back unchanged.

    Raises:
        ConfigError: ``kd_det::`` with a name that does not ship.
    """
    if osp.exists(path):
        return path
    for prefix in (PREFIX, 'configs/'):
        if path.startswith(prefix):
            found = FOLDER / 'configs' / path.removeprefix(prefix)
            if found.is_file():
                return str(found)
    if path.startswith(PREFIX):
        raise ConfigError(f'config {path!r} does not ship; kd-det configs lists those that do')
    return path


def shipped_configs(pattern: str = '') -> list[str]:
    """Names of the shipped configs, ``kd_det::...``, that contain ``pattern`` or match it where it has ``*`` or ``?``."""
    root = FOLDER / 'configs'
    names = sorted(path.relative_to(root).as_posix() for path in root.glob('*/*.py'))
    wanted = pattern.removeprefix(PREFIX)
    if not any(sign in wanted for sign in '*?'):
        wanted = f'*{wanted}*'
    return [PREFIX + name for name in names if fnmatch.fnmatchcase(name, wanted)]


def study_file(name: str) -> str:
    """A study file: a path, or the name of one that ships (``faster_rcnn_bccd``)."""
    shipped = FOLDER / 'studies' / f'{name.removesuffix(".json")}.json'
    return str(shipped) if not osp.isfile(name) and shipped.is_file() else name
