"""How large student and teacher see the images: another size for the student, a multiple of it for the teacher."""
import copy
from collections.abc import Callable
from typing import Any

from mmengine.config import Config

from ..datasets.two_view import SIZE_FREE, check_pipeline
from ..errors import ConfigError
from .anchors import input_scale

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
ONE_SIZE = ('Resize', 'FixScaleResize')
"""Resizes to one size, which another one can take the place of."""
WRAPPERS = ('RepeatDataset', 'ClassBalancedDataset')
"""Data sets of data sets that leave samples as they are."""


def pipeline_of(dataset: dict) -> list[dict]:
    """The pipeline of a data set, or of the first one inside it."""
    while dataset.get('pipeline') is None and (
            inner := dataset.get('dataset') or (dataset.get('datasets') or [None])[0]):
        dataset = inner
    return dataset.get('pipeline') or []


def test_pipeline(cfg: Config) -> list[dict]:
    """How a config's images are evaluated."""
    return pipeline_of((cfg.get('test_dataloader') or cfg.val_dataloader).dataset)


def set_size(cfg: Config, size: tuple[int, int], flag: str) -> None:
    """Let a detector see its images at another size, in place.

    Args:
        cfg: with pipelines that resize to one size.
        size: (width, height); as an upper bound where proportions are kept, as MMDetection's ``scale``.
        flag: the argument that asks for it, for the message.

    Raises:
        ConfigError: a transform whose own numbers hang on the size (crops, mosaics, several scales), or none that
            resizes.
    """
    def change(step: dict) -> dict:
        name = _name(step)
        if name in ONE_SIZE and step.get('scale'):
            return {**step, 'scale': size}
        if name not in SIZE_FREE:
            raise ConfigError(f'{flag} {_text(size)}: the pipeline of {cfg.filename} has {name}, whose numbers hang on '
                              'the size too; give a student\'s config with pipelines of that size instead')
        return step
    _change(cfg, change)
    if input_scale(test_pipeline(cfg))[0] is None:
        raise ConfigError(f'{flag} {_text(size)}: the pipeline of {cfg.filename} has no {" or ".join(ONE_SIZE)} with a '
                          'scale; give a student\'s config with pipelines of that size instead')


def enlarged(cfg: Config, times: int) -> Config:
    """A config whose pipelines resize to ``times`` the size; of 1 it is the config itself."""
    if times == 1:
        return cfg
    cfg = copy.deepcopy(cfg)

    def larger(value: Any) -> Any:
        return type(value)(larger(one) for one in value) if isinstance(value, (list, tuple)) else value * times
    _change(cfg, lambda step: {
        key: larger(value) if key in ('scale', 'scales', 'max_size') and value is not None else value
        for key, value in step.items()})
    return cfg


def two_views(dataset: dict, times: int, flag: str) -> dict[str, Any]:
    """A student's train data set with the teacher's view beside each image, inside the wrappers that it has.

    Raises:
        ConfigError: a pipeline that cannot be repeated at another size.
    """
    kind = _name(dataset)
    if kind in WRAPPERS and isinstance(dataset.get('dataset'), dict):
        return {**dataset, 'dataset': two_views(dataset['dataset'], times, flag)}
    if dataset.get('pipeline') is None or 'dataset' in dataset:
        raise ConfigError(f'{flag} {times}: the student\'s train data set is a {kind}, which mixes images or has no '
                          'pipeline of its own; the teacher\'s view needs a plain one')
    check_pipeline(dataset['pipeline'], f'{flag} {times}: the student\'s train pipeline')
    return dict(type='TwoViewDataset', scale_factor=times, dataset=dict(dataset))


def words(student: Config, teacher: Config, times: int, trained: bool) -> list[str]:
    """What is to be said about sizes, before anything is trained.

    Args:
        student, teacher: as they come, a size that was asked for set.
        times: sides of the teacher's images over the student's.
        trained: whether the teacher is trained here.
    """
    ours, theirs = (input_scale(test_pipeline(cfg))[0] for cfg in (student, teacher))
    lines = []
    seen = ours and tuple(side * times for side in ours)
    if times > 1:
        lines.append(f'resolution: the teacher sees each image at {times} times the student\'s size'
                     + (f', {_text(seen)} where the student sees {_text(ours)}' if ours else '')
                     + ', from its own pixels')
    if not ours or not theirs or sorted(seen) == sorted(theirs):
        return lines
    apart = max(theirs) / max(ours)
    line = f'resolution: the teacher\'s config is for {_text(theirs)}; ' + (
        f'it is trained for {_text(seen)}, which it sees here' if trained else
        f'HERE IT SEES {_text(seen)}, which it was not trained for')
    if times == 1 and apart >= 2 and apart == int(apart) and sorted(side * apart for side in ours) == sorted(theirs):
        line += f'. --teacher-scale {apart:g} gives it a view of its own of that size'
    return [*lines, line]


def _text(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'


def _name(step: dict) -> str:
    return str(step.get('type')).removesuffix("'>").rsplit('.', 1)[-1]


def _change(cfg: Config, change: Callable[[dict], dict]) -> None:
    """Every step of every pipeline of the loaders, in place."""
    def walk(dataset: Any) -> None:
        if not isinstance(dataset, dict):
            return
        if dataset.get('pipeline') is not None:
            dataset['pipeline'] = [change(step) for step in dataset['pipeline']]
        for inner in [dataset.get('dataset'), *(dataset.get('datasets') or [])]:
            walk(inner)
    for key in LOADERS:
        walk((cfg.get(key) or {}).get('dataset'))
