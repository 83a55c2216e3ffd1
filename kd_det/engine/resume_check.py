"""What a resumed run must share with the run it continues; MMEngine compares next to nothing."""
import os.path as osp
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..config_difference import differing, flat, read_dumped
from ..errors import CheckpointMismatch, ConfigError
from .run_identity import changes, made_of
from .seed_hook import RUN_STATE

COMPARED = ('model', 'train_dataloader', 'unlabelled_dataloader', 'optim_wrapper', 'param_scheduler', 'randomness',
            'chain')
FREE = {'num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory'}
"""Of a data loader: they change how fast, not what."""
ADDED = {'params', 'param_names', 'initial_lr'}
"""In an optimizer's groups, beside its own settings."""
SHOWN = 8


class ResumeCheckHook(Hook):
    """Refuses to resume from a checkpoint without optimizer state, of an impossible epoch, or of another config.

    Compared are :data:`COMPARED`, with files (checkpoints, configs) by their names and without the place of the data
    set; then what is in the files, and the number of processes (:func:`.run_identity.made_of`). ``train_cfg`` may
    differ, so that a run can be made longer.

    Args:
        anyway (bool): ``--resume-anyway``: differences of the config are a warning.

    Raises:
        CheckpointMismatch, ConfigError: naming what differs; nothing has been trained.
    """

    priority = 'LOWEST'  # hooks that know the network say first what is wrong with it

    def __init__(self, anyway: bool = False) -> None:
        self.anyway = anyway
        self._own: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        what = f'--resume {runner._load_from}'
        if 'optimizer' not in checkpoint:
            raise CheckpointMismatch(f'{what}: there is no optimizer state in it, as in best checkpoints; to start '
                                     'from its weights use --cfg-options load_from=CHECKPOINT')
        meta = checkpoint.get('meta') or {}
        for name, end in (('epoch', runner.max_epochs), ('iter', runner.max_iters)):
            found = meta.get(name)
            if not isinstance(found, int) or found < 0 or (name == 'epoch' and found > end):
                raise CheckpointMismatch(f'{what}: its {name} is {found!r}; this run ends at {end}'
                                         + ('; raise train_cfg.max_epochs to go on' if name == 'epoch' else ''))
        found = differences(meta.get('cfg') or '', runner.cfg.pretty_text)
        found += changes((checkpoint.get(RUN_STATE) or {}).get('made_of') or {}, self._made_of(runner))
        if found:
            self._say(runner, what, found)
        _check_optimizer(what, checkpoint['optimizer'], runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if 'optimizer' in checkpoint:
            checkpoint.setdefault(RUN_STATE, {})['made_of'] = self._made_of(runner)

    def _made_of(self, runner: Runner) -> dict[str, Any]:
        if self._own is None:  # once: files are read
            self._own = made_of(runner)
        return dict(self._own)

    def _say(self, runner: Runner, what: str, found: list[str]) -> None:
        text = '\n  '.join(found[:SHOWN] + ([f'and {len(found) - SHOWN} more'] if len(found) > SHOWN else []))
        if not self.anyway:
            raise ConfigError(f'{what}: it is of a run with another config, other files or other processes:\n  {text}\n'
                              'Resume as it was, or go on with --resume-anyway')
        runner.logger.warning(f'{what}: goes on although this differs:\n  {text}')


def _check_optimizer(what: str, state: dict, runner: Runner) -> None:
    """The optimizer's state is of this run's optimizer; ``load_state_dict`` of another one fails late, or not at all.
    """
    wrapper = runner.optim_wrapper
    named = dict(wrapper.items()) if hasattr(wrapper, 'items') else {None: wrapper}
    for name, one in named.items():
        optimizer = getattr(one, 'optimizer', None)
        if optimizer is None:  # not built: a runner of somebody else's
            continue
        found = state.get(name) if name is not None else state
        groups = (found or {}).get('param_groups') or []
        kind = type(optimizer).__name__
        for stored, own in zip(groups, optimizer.param_groups):
            there, here = set(stored) - set(own), set(own) - set(stored)
            if there - ADDED and here - ADDED:  # another version of PyTorch adds keys on one side only
                raise CheckpointMismatch(
                    f'{what}: the optimizer\'s state in it is not {kind}\'s: it has {sorted(there - ADDED)}, {kind} '
                    f'has {sorted(here - ADDED)}. Resume with the run\'s own optimizer, or start from its weights: '
                    '--cfg-options load_from=CHECKPOINT')
        sizes = [[len(group['params']) for group in side] for side in (groups, optimizer.param_groups)]
        if sizes[0] != sizes[1]:
            raise CheckpointMismatch(
                f'{what}: the optimizer\'s state in it is of {sum(sizes[0])} parameters in {len(sizes[0])} groups, '
                f'this run\'s {kind} has {sum(sizes[1])} in {len(sizes[1])}; the network or paramwise_cfg differs. '
                'Resume with the config of the run, or start from its weights: --cfg-options load_from=CHECKPOINT')


def differences(before: str, now: str) -> list[str]:
    """Lines ``key: was ..., is ...`` for two configs, given as the text that MMEngine dumps. Nothing is executed."""
    if not before:
        return []
    one, two = (_compared(text) for text in (before, now))

    def shown(values: dict, key: str) -> str:
        return repr(values[key]) if key in values else 'not there'
    return [f'{key}: was {shown(one, key)}, is {shown(two, key)}' for key in differing(one, two)]


def _compared(text: str) -> dict[str, Any]:
    """What must be the same, flat, without the places of files."""
    try:
        cfg = read_dumped(text)
    except SyntaxError as error:
        raise CheckpointMismatch(f'--resume: the config in the checkpoint cannot be read ({error})') from error
    root = str(cfg.get('data_root') or '').rstrip('/')
    free = {f'{loader}.{name}' for loader in ('train_dataloader', 'unlabelled_dataloader') for name in FREE}
    found = flat({key: cfg.get(key) for key in COMPARED}, keep=lambda key: key not in free)
    for key, value in found.items():
        if isinstance(value, str) and key.rsplit('.', 1)[-1] in ('checkpoint', 'config'):
            found[key] = osp.basename(value)
        elif isinstance(value, str) and root and value.startswith(root):
            found[key] = value[len(root):].lstrip('/')
    return found
