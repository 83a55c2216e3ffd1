"""From what the command line names to a run: config, checkpoint, seed, log."""
import copy
import glob
import os.path as osp
import re
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from ..config import load_config, set_data_root
from ..errors import CompareError
from .logs import RunLog, read_log

_PAIR = re.compile(r'(.+?\.(?:py|json|ya?ml)):(.+)')


@dataclass
class Run:
    """One trained detector.

    Attributes:
        name (str): what the user calls it, or the name of its folder.
        config_name (str): config file without folder and ending.
        cfg (Config): resolved.
        checkpoint (str): file or URL.
        log (RunLog | None): None for ``CONFIG:CHECKPOINT``.
    """
    name: str
    config_name: str
    cfg: Config
    checkpoint: str
    log: RunLog | None = None


def find_run(spec: str, name: str | None = None, data_root: str | None = None) -> Run:
    """Resolve ``WORK_DIR`` or ``CONFIG:CHECKPOINT``.

    Raises:
        CompareError: neither of them; a work directory without (or with several) configs, or without a checkpoint; an
            unreadable log.
    """
    if osp.isdir(spec):
        run = _from_work_dir(spec)
    elif match := _PAIR.fullmatch(spec):
        run = _from_pair(*match.groups())
    else:
        raise CompareError(f'{spec!r} is neither a work directory (what kd-det train writes) nor '
                           'CONFIG:CHECKPOINT')
    if data_root is not None:
        if not osp.isdir(data_root):
            raise CompareError(f'--data-root {data_root}: there is no such folder')
        set_data_root(run.cfg, data_root)
    run.name = name or run.name
    return run


def _from_pair(config: str, checkpoint: str) -> Run:
    stem = osp.splitext(osp.basename(config))[0]
    if '://' not in checkpoint and not osp.isfile(checkpoint):
        raise CompareError(f'checkpoint {checkpoint!r} does not exist')
    return Run(stem, stem, load_config(config), checkpoint)


def _from_work_dir(work_dir: str) -> Run:
    configs = sorted(glob.glob(osp.join(glob.escape(work_dir), '*.py')))
    if len(configs) != 1:
        found = [osp.basename(path) for path in configs] or 'none'
        raise CompareError(
            f'{work_dir!r} must hold exactly one config (.py), found {found}; name the work '
            'directory of one run of kd-det train, or give CONFIG:CHECKPOINT')
    log = read_log(work_dir)
    stem = osp.splitext(osp.basename(configs[0]))[0]
    # kd-det test writes its own variant of the config over the first one
    cfg = load_config(log.config or configs[0])
    name = osp.basename(osp.abspath(work_dir))
    return Run(name, stem, cfg, last_checkpoint(work_dir), log)


def last_checkpoint(work_dir: str) -> str:
    pointer = osp.join(work_dir, 'last_checkpoint')
    if osp.isfile(pointer):
        with open(pointer, encoding='utf-8') as file:
            named = file.read().strip()
        # beside the pointer first: the directory may have been moved or copied
        for path in (osp.join(work_dir, osp.basename(named)), named):
            if osp.isfile(path):
                return path
        raise CompareError(f'{pointer} names {named!r}, which does not exist; give '
                           'CONFIG:CHECKPOINT')
    numbered = {}
    for path in glob.glob(osp.join(glob.escape(work_dir), '*.pth')):
        if match := re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', osp.basename(path)):
            numbered[int(match[1])] = path
    if not numbered:
        raise CompareError(f'{work_dir!r} holds no checkpoint: neither last_checkpoint nor '
                           'epoch_N.pth or iter_N.pth; is the training finished?')
    return numbered[max(numbered)]


def seed_of(cfg: Config, meta: dict[str, Any]) -> int | None:
    """The seed that the checkpoint says it was trained with, or else the config's."""
    seed = meta.get('seed')
    return seed if seed is not None else (cfg.get('randomness') or {}).get('seed')


def recipe(cfg: Config, meta: dict[str, Any]) -> str:
    """A text that is equal for two runs that differ in the seed alone.

    The resolved config without what only says where and how the run was started, together with the length of the
    training that the checkpoint has seen.
    """
    content = copy.deepcopy(cfg.to_dict())
    for key in ('work_dir', 'launcher', 'log_level', 'experiment_name'):
        content.pop(key, None)
    if content.pop('resume', False):
        content.pop('load_from', None)  # its own earlier checkpoint
    content['randomness'] = {k: v for k, v in (content.get('randomness') or {}).items()
                             if k != 'seed'}
    content['trained'] = [meta.get('epoch'), meta.get('iter')]
    return repr(_sorted(content))


def _sorted(value):
    if isinstance(value, dict):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [_sorted(part) for part in value]  # a dumped config may turn one into the other
    return value
