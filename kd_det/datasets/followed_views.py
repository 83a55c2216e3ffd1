"""Boxes of a whole image in its augmented views: which pipelines say where they put a box, and where that is."""
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import HorizontalBoxes
from torch import Tensor, nn

from ..errors import ConfigError
from .exact_views import DETERMINISTIC, FLIP, SAME_CANVAS, batch_changes, transforms_of

MATRIX = 'homography_matrix'
"""Under which MMDetection's transforms say how they map the image's own pixels to those of the view."""
MOVES = {FLIP, 'RandomResize', 'RandomChoiceResize', 'RandomCrop', 'Rotate', 'ShearX', 'ShearY', 'TranslateX',
         'TranslateY'}
COLOURS = {'PhotoMetricDistortion', 'YOLOXHSVRandomAug', 'ColorTransform', 'Color', 'Brightness', 'Contrast',
           'Sharpness', 'Solarize', 'SolarizeAdd', 'Posterize', 'Equalize', 'AutoContrast', 'Invert', 'Corrupt',
           'CutOut', 'RandomErasing'}
CHOICES = {'RandomApply', 'RandomChoice', 'AutoAugment', 'RandAugment', 'Compose'}
"""Transforms of transforms."""
SEVERAL = {'Mosaic', 'CachedMosaic', 'MixUp', 'CachedMixUp', 'CopyPaste'}
FOLLOWED = DETERMINISTIC | MOVES | COLOURS
"""Transforms that move boxes as their matrix says, or not at all. Add one of your own that multiplies its matrix to
``results['homography_matrix']``.
"""


def check_followed(dataset: Any, preprocessor: nn.Module, key: str, where: str = 'train_dataloader.dataset') -> None:
    """Boxes of a whole image can be carried into every view that ``dataset`` makes of it; and its samples say how.

    The transform that packs samples is told to keep the matrix.

    Args:
        preprocessor: the student's.
        key (str): of what needs it, for the message.
        where (str): the config key of the data set.

    Raises:
        ConfigError: a transform that does not say where it puts a box, or shows several images in one; a batch
            augmentation that changes images; samples without the image's path.
    """
    transforms = list(_single(transforms_of(dataset)))
    names = list(dict.fromkeys(type(transform).__name__ for transform in transforms))
    several = [name for name in names if name in SEVERAL]
    if several:
        raise ConfigError(f'{key}: {where}.pipeline has {", ".join(several)}, which shows several images in '
                          'one; boxes are recorded by image, and which belong into such a view is not known. Take it '
                          'out, or train with the live teacher (without record)')
    unknown = [name for name in names if name not in FOLLOWED]
    if unknown:
        raise ConfigError(f'{key}: {where}.pipeline has {", ".join(unknown)}, which does not say where it puts a box '
                          f'(results[\'{MATRIX}\']); {", ".join(sorted(MOVES))} and changes of colour do. Take it '
                          'out, or train with the live teacher (without record)')
    unknown = batch_changes(preprocessor)
    if unknown:
        raise ConfigError(f'{key}: data_preprocessor.batch_augments has {", ".join(unknown)}, which does not say where '
                          f'it puts a box; {sorted(SAME_CANVAS)} leaves them where they are')
    for transform in transforms:
        keys = getattr(transform, 'meta_keys', None)
        if keys is None:
            continue
        missing = [name for name in ('img_id', 'img_path', 'img_shape', 'ori_shape') if name not in keys]
        if missing:
            raise ConfigError(f'{key}: {where}.pipeline: {type(transform).__name__}.meta_keys has no {missing}, which '
                              'say which image a sample is of; add them')
        if MATRIX not in keys:
            transform.meta_keys = (*keys, MATRIX)


def _single(transforms: Any) -> Iterator[Any]:
    """Transforms, and those of which others choose."""
    for transform in transforms:
        if isinstance(transform, (list, tuple)):
            yield from _single(transform)
        elif type(transform).__name__ in CHOICES:
            yield from _single(transform.transforms)
        else:
            yield transform


def matrix_of(meta: dict, key: str) -> np.ndarray:
    """(3, 3), from the pixels of the image's file to those of a view with the metainfo ``meta``.

    Raises:
        ConfigError: the sample does not say it.
    """
    matrix = meta.get(MATRIX)
    if matrix is not None:
        return np.asarray(matrix, np.float32)
    if meta.get('flip') or tuple(meta['img_shape'][:2]) != tuple(meta.get('ori_shape', (0, 0))[:2]):
        raise ConfigError(f'{key}: {meta.get("img_path")}: the sample does not say how it was augmented; '
                          f'PackDetInputs.meta_keys needs {MATRIX!r}')
    return np.eye(3, dtype=np.float32)


def in_view(boxes: Tensor, meta: dict, key: str) -> tuple[Tensor, Tensor]:
    """Boxes (D, 4) in pixels of the image's file, where a view shows them, and which of them (D,) it shows at all.

    As MMDetection's transforms move ground truth: corners are mapped, the upright box around them is cut at the border
    of the view, and what has no area left is not there. Where several transforms rotate or shear, corners are mapped
    once by all of them, which gives a box no larger than theirs.
    """
    moved = HorizontalBoxes(boxes, clone=True)
    moved.project_(torch.from_numpy(matrix_of(meta, key)).to(boxes))
    moved.clip_(tuple(meta['img_shape'][:2]))
    found = moved.tensor
    return found, (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
