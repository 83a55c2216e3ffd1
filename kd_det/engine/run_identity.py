"""What a run is made of that its config does not say: what is in its files, and how many processes share the work."""
import hashlib
import os.path as osp
from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

PROCESSES = 'number of processes'
LOADERS = ('train_dataloader', 'unlabelled_dataloader')


def made_of(runner: Runner) -> dict[str, Any]:
    """Name -> value, all of which stay what they are while a run goes on.

    A file is known by its content: checkpoints of many runs are called ``epoch_12.pth``, and those that were moved are
    the same. Annotation files in remote stores are left out.
    """
    found: dict[str, Any] = {PROCESSES: get_world_size()}
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for source in getattr(model, 'sources', {}).values():
        if getattr(source, 'weights_digest', None):
            found[f'weights of {source.key}.checkpoint'] = source.weights_digest
    for loader in LOADERS:
        for key, path in _annotation_files((runner.cfg.get(loader) or {}).get('dataset'), f'{loader}.dataset'):
            with open(path, 'rb') as file:
                found[f'content of {key}.ann_file'] = hashlib.sha256(file.read()).hexdigest()
    return found


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Lines for what is in both and differs; an older checkpoint knows less."""
    return [f'{name}: was {_short(before[name])}, is {_short(now[name])}'
            for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]


def _short(value: Any) -> str:
    return f'{value[:8]}... (SHA-256)' if isinstance(value, str) else repr(value)


def _annotation_files(dataset: Any, key: str) -> Iterator[tuple[str, str]]:
    if not isinstance(dataset, dict):
        return
    name = dataset.get('ann_file')
    path = osp.join(dataset.get('data_root') or '', name) if isinstance(name, str) else ''
    if osp.isfile(path):
        yield key, path
    yield from _annotation_files(dataset.get('dataset'), f'{key}.dataset')
    for i, part in enumerate(dataset.get('datasets') or []):
        yield from _annotation_files(part, f'{key}.datasets[{i}]')
