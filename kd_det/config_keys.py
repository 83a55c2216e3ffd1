"""Keys below the top level of a config that are probably typing errors, and numbers that are texts."""
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.hooks import CheckpointHook, LoggerHook, ParamSchedulerHook
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from .arguments import non_negative, non_negative_int, positive, positive_int
from .build import checked
from .errors import ConfigError

HOOKS = frozenset('runtime_info timer sampler_seed logger param_scheduler checkpoint visualization'.split())
PARAMWISE = frozenset('custom_keys bias_lr_mult bias_decay_mult norm_decay_mult flat_decay_mult dwconv_decay_mult '
                      'dcn_offset_lr_mult bypass_duplicate'.split())
CLIPPING = frozenset('type max_norm norm_type clip_value error_if_nonfinite foreach'.split())
RANDOMNESS = frozenset({'seed', 'diff_rank_seed', 'deterministic'})
ENVIRONMENT = frozenset({'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'})
NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')

NUMBERS = {
    r'\w+_dataloader\.batch_size': positive_int, r'\w+_dataloader\.num_workers': non_negative_int,
    r'train_cfg\.(max_epochs|max_iters|val_interval)': lambda name, value: positive_int(
        name, int(value) if isinstance(value, float) and value.is_integer() else value),  # as MMEngine takes them
    r'optim_wrapper\.optimizer\.(lr|weight_decay|momentum)': non_negative,
    r'optim_wrapper\.accumulative_counts': positive_int, r'optim_wrapper\.clip_grad\.max_norm': positive,
    r'default_hooks\.logger\.interval': positive_int, r'randomness\.seed': non_negative_int}
"""Where a number stands that would be taken as it is, or refused without its key; None is always allowed."""


def check_depth(cfg: dict) -> None:
    """Look below the keys that a run reads and MMEngine does not check.

    Raises:
        ConfigError: a key that is no argument of what it is for; a number written as a text.
    """
    _known('default_hooks', cfg.get('default_hooks'), HOOKS, only_close=True)
    for name, cls in (('checkpoint', CheckpointHook), ('logger', LoggerHook), ('param_scheduler', ParamSchedulerHook)):
        hook = (cfg.get('default_hooks') or {}).get(name)
        if isinstance(hook, dict) and hook.get('type') in (cls.__name__, cls):
            _known(f'default_hooks.{name}', hook, {*_arguments(cls), 'type', 'priority'})
    _check_optimizer(cfg.get('optim_wrapper'))
    _known('randomness', cfg.get('randomness'), RANDOMNESS)
    _known('env_cfg', cfg.get('env_cfg'), ENVIRONMENT, only_close=True)
    _known('env_cfg.mp_cfg', (cfg.get('env_cfg') or {}).get('mp_cfg'), {'mp_start_method', 'opencv_num_threads'})
    _known('auto_scale_lr', cfg.get('auto_scale_lr'), {'enable', 'base_batch_size'}, only_close=True)
    loops = {'EpochBasedTrainLoop': EpochBasedTrainLoop, 'IterBasedTrainLoop': IterBasedTrainLoop}
    train = cfg.get('train_cfg')
    if isinstance(train, dict) and (train.get('type') in loops or 'by_epoch' in train):
        loop = loops.get(train.get('type'), EpochBasedTrainLoop if train.get('by_epoch') else IterBasedTrainLoop)
        _known('train_cfg', train, {*_arguments(loop), 'type', 'by_epoch'})
    for split in ('train', 'val', 'test', 'unlabelled'):
        loader = cfg.get(f'{split}_dataloader')
        _known(f'{split}_dataloader', loader, {*_arguments(DataLoader), 'num_batch_per_epoch'}, only_close=True)
    for key in ('optim_wrapper', 'train_cfg', 'param_scheduler', 'train_dataloader', 'val_dataloader',
                'unlabelled_dataloader'):
        for where, value in _leaves(cfg.get(key), key):
            if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
                raise ConfigError(f'{where}: found the text {value!r}; a number is expected, without quotes')
    _check_numbers(cfg)


def check_complete(cfg: dict) -> None:
    """What a training needs is there, and validation is there as a whole or not at all.

    Raises:
        ConfigError: naming the keys.
    """
    missing = [key for key in ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper') if not cfg.get(key)]
    if missing:
        raise ConfigError(f'{", ".join(missing)}: not in the config, and a training needs them')
    validation = {key: bool(cfg.get(key)) for key in ('val_dataloader', 'val_cfg', 'val_evaluator')}
    if len(set(validation.values())) > 1:
        there = [key for key, found in validation.items() if found]
        raise ConfigError(f'{", ".join(validation.keys() - set(there))}: not in the config, which has '
                          f'{", ".join(there)}; give all three to validate, or set all three to None')


def _check_numbers(cfg: dict) -> None:
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'unlabelled_dataloader', 'train_cfg',
                'optim_wrapper', 'default_hooks', 'randomness'):
        for where, value in _leaves(cfg.get(key), key):
            rule = next((rule for pattern, rule in NUMBERS.items() if re.fullmatch(pattern, where)), None)
            if rule is not None and value is not None:
                checked(where, rule, value)
    interval = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('interval')
    if interval == 0:
        raise ConfigError('default_hooks.checkpoint.interval: found 0, which saves nothing; it must be 1 or larger, or '
                          '-1 to save no checkpoint')
    std = ((cfg.get('model') or {}).get('data_preprocessor') or {}).get('std')
    for i, value in enumerate(std if isinstance(std, (list, tuple)) else ()):
        checked(f'model.data_preprocessor.std[{i}]', positive, value)
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and seed >= 2**32:
        raise ConfigError(f'randomness.seed: found {seed}; it must be less than 2**32')
    for split in ('train', 'val', 'test', 'unlabelled'):
        loader = cfg.get(f'{split}_dataloader') or {}
        if loader.get('persistent_workers') and not loader.get('num_workers'):
            raise ConfigError(f'{split}_dataloader.persistent_workers: found True, and num_workers is '
                              f'{loader.get("num_workers", 0)}; it must be False, or num_workers 1 or larger')


def _check_optimizer(wrapper: Any) -> None:
    if not isinstance(wrapper, dict):
        return
    if wrapper.get('type', 'OptimWrapper') in ('OptimWrapper', 'AmpOptimWrapper'):
        known = {*_arguments(OptimWrapper), *_arguments(AmpOptimWrapper), 'type', 'constructor', 'paramwise_cfg'}
        _known('optim_wrapper', wrapper, known)
        _known('optim_wrapper.clip_grad', wrapper.get('clip_grad'), CLIPPING)
    if wrapper.get('constructor', 'DefaultOptimWrapperConstructor') in ('DefaultOptimWrapperConstructor',
                                                                       DefaultOptimWrapperConstructor):
        paramwise = wrapper.get('paramwise_cfg')
        _known('optim_wrapper.paramwise_cfg', paramwise, PARAMWISE)
        for name, one in ((paramwise or {}).get('custom_keys') or {}).items():
            _known(f'optim_wrapper.paramwise_cfg.custom_keys.{name}', one, {'lr_mult', 'decay_mult'})


def check_options(key: str, cfg: dict, options: dict) -> None:
    """Dotted ``options`` reach something in ``cfg``: MMEngine would make what is not there, and nothing would read it.

    Raises:
        ConfigError: a part of the path that is not there, or a last part close to one that is.
    """
    for option in options:
        part, path = cfg, str(option).split('.')
        for i, name in enumerate(path):
            if isinstance(part, (list, tuple)):
                part = part[int(name)] if name.isdigit() and int(name) < len(part) else None
            elif isinstance(part, dict) and name in part:
                part = part[name]
            elif not isinstance(part, dict) or i < len(path) - 1 or i == 0 \
                    or difflib.get_close_matches(name, part, n=1, cutoff=0.8):
                known = list(part) if isinstance(part, dict) else []
                close = difflib.get_close_matches(name, known, n=1)
                raise ConfigError(f'{key}: {option!r} changes nothing, there is no {name!r} in '
                                  f'{".".join(path[:i]) or "the config"}; '
                                  + (f'did you mean {close[0]!r}?' if close else f'it has {known}'))


def _known(key: str, found: Any, known: Iterable[str], only_close: bool = False) -> None:
    """Refuse keys of ``found`` that are not ``known``; with ``only_close``, those that resemble one."""
    for name in found if isinstance(found, dict) else ():
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.8 if only_close else 0.6)
        if name not in known and not str(name).startswith('_') and (close or not only_close):  # MMEngine's own
            raise ConfigError(f'{key}: nothing reads {name!r}'
                              + (f'; did you mean {close[0]!r}?' if close else f'; known are {sorted(known)}'))


def _arguments(cls: type) -> list[str]:
    return [name for name in inspect.signature(cls.__init__).parameters if name not in ('self', 'args', 'kwargs')]


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Values below ``key`` with where they stand; a data set's own are texts by right (ids, folders named by a number).
    """
    if isinstance(value, dict):
        for name, one in value.items():
            if name != 'dataset':
                yield from _leaves(one, f'{key}.{name}')
    elif isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            yield from _leaves(one, f'{key}[{i}]')
    else:
        yield key, value
