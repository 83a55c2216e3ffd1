"""Whether the same image is seen the same way again: which transforms of a pipeline draw, and how it can be mirrored.
"""
from collections.abc import Iterator
from typing import Any

from torch import nn

from ..errors import ConfigError

DETERMINISTIC = {'LoadImageFromFile', 'LoadAnnotations', 'LoadEmptyAnnotations', 'LoadProposals', 'FilterAnnotations',
                 'Resize', 'FixScaleResize', 'FixShapeResize', 'ResizeShortestEdge', 'Pad', 'Normalize',
                 'PackDetInputs'}
"""Transforms that do the same to an image each time. Add one of your own here."""
FLIP = 'RandomFlip'
SAME_CANVAS = {'BatchFixedSizePad'}
"""Batch augmentations that do the same to an image each time."""


def transforms_of(dataset: Any) -> Iterator[Any]:
    """Every transform of a data set, and of those that it wraps."""
    waiting, seen = [dataset], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        pipeline = getattr(one, 'pipeline', None) or getattr(one, 'transforms', [])
        yield from getattr(pipeline, 'transforms', pipeline)
        waiting += [inner for inner in (getattr(one, 'dataset', None), getattr(one, '_dataset', None))
                    if inner is not None]
        waiting += list(getattr(one, 'datasets', []))


def check_exact_views(dataset: Any, preprocessor: nn.Module, key: str, where: str = 'train_dataloader.dataset') -> None:
    """Each image of ``dataset`` is seen in a few views that can be told apart by what its samples say of themselves.

    Args:
        preprocessor: the student's.
        key (str): of what needs it, for the message.
        where (str): the config key of the data set.

    Raises:
        ConfigError: a transform or a batch augmentation that changes an image at random, but for mirroring; samples
            that do not say what they show.
    """
    transforms = list(transforms_of(dataset))
    names = [type(transform).__name__ for transform in transforms]
    drawing = [name for name in dict.fromkeys(names) if name not in DETERMINISTIC | {FLIP}]
    if drawing:
        raise ConfigError(f'{key}: {where}.pipeline has {", ".join(drawing)}, which may change an image in another way '
                          f'each time it is seen, so that what the teacher says of it cannot be kept; {FLIP} alone can '
                          '(a mirrored view is recorded apart). Take it out, or train with the live teacher (without '
                          'record)')
    drawing = batch_changes(preprocessor)
    if drawing:
        raise ConfigError(f'{key}: data_preprocessor.batch_augments has {", ".join(drawing)}, which changes images by '
                          f'chance or by what else is in the batch; {sorted(SAME_CANVAS)} can be recorded')
    wanted = ['img_id', 'img_shape'] + ['flip', 'flip_direction'] * (FLIP in names)
    for transform in transforms:
        missing = [name for name in wanted if name not in getattr(transform, 'meta_keys', wanted)]
        if missing:
            raise ConfigError(f'{key}: {where}.pipeline: {type(transform).__name__}.meta_keys has no {missing}, which '
                              'say which view of which image a sample is; add them')


def batch_changes(preprocessor: nn.Module) -> list[str]:
    """Names of a preprocessor's batch augmentations that do more than pad."""
    names = [type(one).__name__ for one in getattr(preprocessor, 'batch_augments', None) or ()]
    return [name for name in names if name not in SAME_CANVAS]


def flips_of(dataset: Any) -> list[Any]:
    """The transforms that mirror."""
    return [transform for transform in transforms_of(dataset) if type(transform).__name__ == FLIP]


def directions(dataset: Any) -> list[str | None]:
    """In which ways an image of ``dataset`` is seen: None, as it is, and the directions in which it may be mirrored."""
    ways: dict[str | None, None] = {}
    for flip in flips_of(dataset):
        listed = flip.direction if isinstance(flip.direction, (list, tuple)) else [flip.direction]
        chances = flip.prob if isinstance(flip.prob, (list, tuple)) else [flip.prob / len(listed)] * len(listed)
        if sum(chances) < 1:
            ways[None] = None
        ways.update(dict.fromkeys(way for way, chance in zip(listed, chances) if chance > 0))
    return list(ways) or [None]


def mirror_always(dataset: Any, way: str | None) -> None:
    """From now on every image of ``dataset`` is mirrored in this one way; None: not at all."""
    for flip in flips_of(dataset):
        flip.direction, flip.prob = way or 'horizontal', 0.0 if way is None else 1.0
