"""Parts of a config that must speak of the same data: the heads, the training data and what evaluates."""
import json
import os.path as osp
import re
from collections.abc import Sequence

from mmengine.config import Config

from ..errors import ConfigError, DataError
from ..own_data import class_numbers

HEADS = re.compile(r'(^|\.)(bbox_head|mask_head)(\.\d+)?\.num_classes$')


def check_class_numbers(cfg: Config, key: str, classes: Sequence[str]) -> None:
    """Every head that scores classes scores those of the data set.

    One class too few, and a softmax head takes the last class for background, without a word; too many train on.

    Raises:
        ConfigError: naming the head's key and both numbers.
    """
    model = cfg.get('model') or {}
    for path in class_numbers(model, len(classes)):
        if HEADS.search(path):
            part = model
            for name in path.split('.')[:-1]:
                part = part[int(name)] if name.isdigit() else part[name]
            raise ConfigError(f'model.{path}: found {part.get("num_classes", "its default")}; {key} has {len(classes)} '
                              f'classes, {tuple(classes)[:10]}. --classes, or the key data, sets every head')


def check_evaluator(cfg: Config, loader: str, path: str) -> None:
    """``CocoMetric`` compares with the annotations of the images that are evaluated.

    Args:
        cfg: the whole config.
        loader: 'val_dataloader' or 'test_dataloader'.
        path: the annotation file of its data set.

    Raises:
        DataError: the evaluator's file is not there, or lists other images under the same numbers, of which every
            detection would be compared with another image's objects.
    """
    key = loader.replace('_dataloader', '_evaluator')
    metrics = cfg.get(key) or []
    for metric in metrics if isinstance(metrics, (list, tuple)) else [metrics]:
        there = metric.get('ann_file') if isinstance(metric, dict) and 'CocoMetric' in str(metric.get('type')) else None
        if not isinstance(there, str) or '://' in there or osp.realpath(there) == osp.realpath(path):
            continue
        if not osp.isfile(there):
            raise DataError(f'{key}.ann_file: {there!r} does not exist; the annotation file of {loader}.dataset is '
                            f'{path!r}')
        ours, theirs = _images(path), _images(there)
        other = [number for number, name in ours.items() if theirs.get(number) != name]
        if other:
            raise DataError(f'{key}.ann_file: {there!r} is not of the images that {loader}.dataset evaluates, '
                            f'{path!r}: {len(other)} of {len(ours)} differ, e.g. image {other[0]} is '
                            f'{ours[other[0]]!r} here and {theirs.get(other[0], "not listed")!r} there')


def _images(path: str) -> dict:
    """Number -> file name, of a file that the data set was read from, or one of its kind."""
    try:
        with open(path, encoding='utf-8') as file:
            return {image['id']: osp.basename(image['file_name']) for image in json.load(file)['images']}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path!r} is not in COCO format ({type(error).__name__}: {error})') from error
