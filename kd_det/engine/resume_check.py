"""What a resumed run must share with the run it continues; MMEngine compares next to nothing."""
import ast
import os.path as osp
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..errors import CheckpointMismatch, ConfigError

COMPARED = ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'randomness')
FREE = {'num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory'}
"""Of a data loader: they change how fast, not what."""
SHOWN = 8


class ResumeCheckHook(Hook):
    """Refuses to resume from a checkpoint without optimizer state, of an impossible epoch, or of another config.

    Compared are :data:`COMPARED`. Files (checkpoints, configs) count by their names, the place of the data set not at all;
    ``train_cfg`` may differ, so that a run can be made longer.

    Args:
        anyway (bool): ``--resume-anyway``: differences of the config are a warning.

    Raises:
        CheckpointMismatch, ConfigError: naming what differs; nothing has been trained.
    """

    priority = 'LOWEST'  # hooks that know the network say first what is wrong with it

    def __init__(self, anyway: bool = False) -> None:
        self.anyway = anyway

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        what = f'--resume {runner._load_from}'
        if 'optimizer' not in checkpoint:
            raise CheckpointMismatch(f'{what}: there is no optimizer state in it, as in best checkpoints; to start from '
                                     'its weights use --cfg-options load_from=CHECKPOINT')
        meta = checkpoint.get('meta') or {}
        for name, end in (('epoch', runner.max_epochs), ('iter', runner.max_iters)):
            found = meta.get(name)
            if not isinstance(found, int) or found < 0 or (name == 'epoch' and found > end):
                raise CheckpointMismatch(f'{what}: its {name} is {found!r}; this run ends at {end}'
                                         + ('; raise train_cfg.max_epochs to go on' if name == 'epoch' else ''))
        found = differences(meta.get('cfg') or '', runner.cfg.pretty_text)
        if not found:
            return
        text = '\n  '.join(found[:SHOWN] + ([f'and {len(found) - SHOWN} more'] if len(found) > SHOWN else []))
        if not self.anyway:
            raise ConfigError(f'{what}: it is of a run with another config:\n  {text}\nResume with that config, or go on '
                              'with --resume-anyway')
        runner.logger.warning(f'{what}: goes on although the config differs:\n  {text}')


def differences(before: str, now: str) -> list[str]:
    """Lines ``key: was ..., is ...`` for two configs, given as the text that MMEngine dumps. Nothing is executed."""
    if not before:
        return []
    one, two = (_flat(_assignments(text)) for text in (before, now))
    return [f'{key}: was {one.get(key, "not there")}, is {two.get(key, "not there")}' for key in sorted({*one, *two})
            if one.get(key) != two.get(key)]


def _assignments(text: str) -> dict[str, Any]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise CheckpointMismatch(f'--resume: the config in the checkpoint cannot be read ({error})') from error
    return {node.targets[0].id: _value(node.value) for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        found = {}
        for keyword in node.keywords:
            found.update({keyword.arg: _value(keyword.value)} if keyword.arg else _value(keyword.value))
        return found
    if isinstance(node, ast.Dict):
        return {str(_value(key)): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(part) for part in node.elts]
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node)


def _flat(cfg: dict[str, Any]) -> dict[str, str]:
    root = str(cfg.get('data_root') or '').rstrip('/')
    found = {}

    def walk(key: str, value: Any) -> None:
        last = key.rsplit('.', 1)[-1]
        if isinstance(value, dict) and value:
            for name, part in value.items():
                if not (key == 'train_dataloader' and name in FREE):
                    walk(f'{key}.{name}', part)
        elif isinstance(value, list) and value:
            for number, part in enumerate(value):
                walk(f'{key}.{number}', part)
        else:
            if isinstance(value, str) and last in ('checkpoint', 'config'):
                value = osp.basename(value)
            elif isinstance(value, str) and root and value.startswith(root):
                value = value[len(root):].lstrip('/')
            found[key] = repr(value)
    for key in COMPARED:
        walk(key, cfg.get(key))
    return found
