"""Batch size, epochs and learning rate for a data set of another size than a config was written for."""
import copy
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmengine.config import Config

from ..errors import ConfigError

FULL = 10_000  # images from which on a config's own epochs are kept
MOST_TIMES = 6.0
MOST_EPOCHS = 150  # unless the config's own are more
SWITCHES = {'PipelineSwitchHook': 'switch_epoch', 'YOLOXModeSwitchHook': 'num_last_epochs'}
"""Hooks that change the data's pipeline late in training, and the epochs that they count."""


@dataclass
class Schedule:
    """What a training changes in its config.

    Attributes:
        epochs, batch, steps: how long; ``steps`` are those of an epoch.
        changes: top-level keys of a config file that inherits the detector's.
        text: what was decided, in a line.
    """

    epochs: int
    batch: int
    steps: int
    changes: dict[str, Any]
    text: str


def schedule(cfg: Config, images: int, epochs: int | None = None, batch: int | None = None) -> Schedule:
    """Scale a config's schedule to a data set.

    - batch: the config's own, at most a quarter of the images;
    - learning rate: in proportion to the batch, from ``auto_scale_lr.base_batch_size`` where the config says for how
      many images a step its rate is meant;
    - epochs: the config's own times sqrt(10,000 / images), at least once and at most 6 times that, and not beyond 150:
      a small set is seen more often, but not by so much that as many images are seen as in a large one. Milestones,
      cosine periods and late switches of the pipeline move in proportion; a warm-up takes at most a tenth of the steps.

    Args:
        cfg: resolved, of the detector.
        images: of the training part.
        epochs, batch: instead of what follows from the rules.

    Raises:
        ConfigError: a config that counts iterations.
    """
    train = cfg.get('train_cfg') or {}
    if not train.get('max_epochs'):
        raise ConfigError(f'{cfg.filename}: its train_cfg counts no epochs ({dict(train)}); give a config with '
                          'train_cfg=dict(by_epoch=True, max_epochs=...)')
    loader = cfg.train_dataloader
    repeats = _repeats(loader.get('dataset') or {})
    own_batch, own = loader.get('batch_size', 1), train['max_epochs']
    batch = batch or max(1, min(own_batch, images // 4))
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size') or own_batch
    if epochs is None:
        times = min(max(math.sqrt(FULL / images), 1.0), MOST_TIMES)
        epochs = max(own, min(round(own * times), MOST_EPOCHS))
        rule = 'as the config has'
        if epochs != own:
            rule = f'{own} of the config x {times:.1f} for a set of {images} images'
    else:
        rule = 'as asked for'
    steps = math.ceil(images * repeats / batch)
    changes: dict[str, Any] = dict(train_cfg=_loop(train, epochs), train_dataloader=dict(batch_size=batch))
    if cfg.get('param_scheduler'):
        changes['param_scheduler'] = _schedulers(cfg.param_scheduler, epochs / own, epochs, steps * epochs)
    if hooks := _hooks(cfg.get('custom_hooks') or [], epochs / own, epochs):
        changes['custom_hooks'] = hooks
    rate = cfg.optim_wrapper.optimizer.get('lr')
    text = f'epochs: {epochs} ({rule}), of {steps} steps of {batch} images'
    if rate is not None and batch != base:
        changes['optim_wrapper'] = dict(optimizer=dict(lr=rate * batch / base))
        text += f', learning rate {rate:g} -> {rate * batch / base:g} (meant for {base} images a step)'
    changes['default_hooks'] = _logging(cfg, epochs, steps)
    return Schedule(epochs, batch, steps, changes, text)


def _repeats(dataset: dict) -> int:
    """How often an epoch goes through the images."""
    times = dataset.get('times', 1) if str(dataset.get('type')).endswith('RepeatDataset') else 1
    return times * (_repeats(dataset['dataset']) if isinstance(dataset.get('dataset'), dict) else 1)


def _loop(train: dict, epochs: int) -> dict[str, Any]:
    changes: dict[str, Any] = dict(max_epochs=epochs, val_interval=max(1, epochs // 5))
    if train.get('val_begin', 1) > epochs:
        changes['val_begin'] = 1
    if train.get('dynamic_intervals'):
        factor = epochs / train['max_epochs']
        changes['dynamic_intervals'] = [(max(1, round(at * factor)), every) for at, every in train['dynamic_intervals']]
    return changes


def _schedulers(found: Any, factor: float, epochs: int, steps: int) -> list[dict]:
    schedulers = copy.deepcopy([dict(one) for one in (found if isinstance(found, (list, tuple)) else [found])])
    for one in schedulers:
        if one.get('by_epoch', True):
            for key in ('begin', 'end', 'T_max', 'step_size'):
                if isinstance(one.get(key), (int, float)) and one[key]:
                    one[key] = max(1, min(round(one[key] * factor), epochs))
            if one.get('milestones'):
                one['milestones'] = sorted({max(1, round(at * factor)) for at in one['milestones']})
        elif one.get('begin', 0) == 0:  # a warm-up, in steps
            one['end'] = max(1, min(one.get('end', steps), steps // 10))
            if one.get('T_max'):
                one['T_max'] = min(one['T_max'], one['end'])
    # periods shrunk onto each other must still follow each other
    for before, after in pairwise(schedulers):
        if before.get('by_epoch', True) and after.get('by_epoch', True) and after.get('begin', 0) and \
                after.get('end') is not None and after['end'] <= after['begin']:
            after['end'] = after['begin'] + 1
    return schedulers


def _hooks(hooks: list, factor: float, epochs: int) -> list[dict] | None:
    """The custom hooks with their late switches moved; None: there are none."""
    found = copy.deepcopy([dict(hook) for hook in hooks])
    moved = False
    for hook in found:
        key = SWITCHES.get(str(hook.get('type')).rsplit('.', 1)[-1])
        if key and hook.get(key):
            hook[key] = max(1, min(round(hook[key] * factor), epochs))
            moved = True
    return found if moved else None


def _logging(cfg: Config, epochs: int, steps: int) -> dict[str, Any]:
    """A line of log at least four times an epoch, a checkpoint each epoch, the last one kept."""
    hooks = cfg.get('default_hooks') or {}
    own = (hooks.get('logger') or {}).get('interval', 10)
    logger = dict(interval=max(1, min(own, steps // 4)))
    checkpoint = dict(interval=max(1, epochs // 20), max_keep_ckpts=1)
    return dict(logger=logger if 'logger' in hooks else dict(type='LoggerHook', **logger),
                checkpoint=checkpoint if 'checkpoint' in hooks else dict(type='CheckpointHook', **checkpoint))
