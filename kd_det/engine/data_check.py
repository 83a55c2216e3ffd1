"""Look at the data before training starts, and say what is wrong with it in words.

MMDetection drops classes that the annotation file does not know, boxes without area and images without annotations
silently, and fails on a missing folder deep inside a worker process.
"""
import json
import math
import os.path as osp
from collections.abc import Iterable

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import ConfigError, DataError

CHECKED_FILES = 2000  # images looked up on disk per data set; a full COCO takes too long over a network drive


def check_data(cfg: Config, loaders: Iterable[str]) -> None:
    """Check every ``CocoDataset`` below the named data loaders.

    ``data_check=dict(zero_size_boxes='skip')`` in the config turns boxes without area from an error into a warning
    (COCO has a few; MMDetection leaves them out).

    Raises:
        DataError: missing data folder, annotation file or images; an annotation file without images; classes that it
            does not have; boxes without area or with coordinates that are not finite.
    """
    policy = dict(cfg.get('data_check') or {})
    skip = policy.pop('zero_size_boxes', 'error')
    if policy or skip not in ('error', 'skip'):
        raise ConfigError(f'data_check={cfg.data_check}: the only key is zero_size_boxes, "error" (default) or "skip"')
    seen, classes = set(), {}
    for loader in loaders:
        if cfg.get(loader) is None:
            continue
        for key, dataset in _coco_datasets(cfg[loader].get('dataset', {}), f'{loader}.dataset'):
            names = (dataset.get('metainfo') or {}).get('classes')
            classes.setdefault(names if isinstance(names, str) or names is None else tuple(names), key)
            if len(classes) > 1:
                (one, there), (other, here) = classes.items()
                raise DataError(f'{here}.metainfo.classes: found {other}, {there} has {one}; a label is a place in this '
                                'list, so that names and order must be the same everywhere')
            spot = (dataset.get('data_root'), dataset.get('ann_file'), str(dataset.get('metainfo')))
            if spot not in seen:
                seen.add(spot)
                _check_coco(key, dataset, skip)


def _coco_datasets(dataset: dict, key: str):
    """The CocoDataset configs inside wrappers (RepeatDataset, ConcatDataset ...), with their config keys."""
    if isinstance(dataset.get('dataset'), dict):
        yield from _coco_datasets(dataset['dataset'], f'{key}.dataset')
    for i, part in enumerate(dataset.get('datasets') or []):
        yield from _coco_datasets(part, f'{key}.datasets[{i}]')
    if str(dataset.get('type')).rsplit('.', 1)[-1] in ('CocoDataset', "CocoDataset'>"):
        yield key, dataset


def _check_coco(key: str, dataset: dict, zero_size_boxes: str) -> None:
    root = dataset.get('data_root') or ''
    if '://' in root or (dataset.get('backend_args') or {}).get('backend') not in (None, 'local', 'disk'):
        return  # a remote store; MMEngine's file backend reports what it cannot read
    if root and not osp.isdir(root):
        raise DataError(f'{key}.data_root: the folder {root!r} does not exist. Put or link the data set there, or say '
                        'where it is with --data-root PATH' + _hint(root))
    path = osp.join(root, dataset['ann_file']) if not osp.isabs(dataset['ann_file']) else dataset['ann_file']
    if not osp.isfile(path):
        raise DataError(f'{key}.ann_file: {path!r} does not exist; an annotation file in COCO format is expected there')
    try:
        with open(path, encoding='utf-8') as file:
            coco = json.load(file)
    except ValueError as error:
        raise DataError(f'{key}.ann_file: {path!r} is not JSON ({error})') from error
    if not isinstance(coco, dict) or 'images' not in coco or 'categories' not in coco:
        raise DataError(f'{key}.ann_file: {path!r} is not in COCO format; it needs "images", "annotations" and '
                        '"categories"')
    if not coco['images']:
        raise DataError(f'{key}.ann_file: {path!r} lists no images')
    _check_classes(key, dataset, coco, path)
    _check_images(key, dataset, coco, root)
    _check_boxes(key, coco, path, zero_size_boxes)


def _hint(root: str) -> str:
    name = osp.basename(root.rstrip('/'))
    return {'digits': '. Make it with: python tools/datasets/make_digits.py'}.get(name, '')


def _check_classes(key: str, dataset: dict, coco: dict, path: str) -> None:
    found = [c['name'] for c in coco['categories']]
    wanted = (dataset.get('metainfo') or {}).get('classes')
    if wanted is None:
        from mmdet.datasets import CocoDataset
        wanted = CocoDataset.METAINFO['classes']
    elif isinstance(wanted, str):
        if not osp.isfile(wanted):
            raise DataError(f'{key}.metainfo.classes: {wanted!r} is neither a sequence of names nor a file with them '
                            '(one class needs a comma: ("name",))')
        with open(wanted, encoding='utf-8') as file:
            wanted = file.read().split('\n')
    missing = [c for c in wanted if c not in found]
    if missing:
        raise DataError(f'{key}.metainfo.classes: {path!r} has no {missing}; its categories are {found}. MMDetection '
                        'would train without the missing classes')


def _check_images(key: str, dataset: dict, coco: dict, root: str) -> None:
    folder = osp.join(root, (dataset.get('data_prefix') or {}).get('img', ''))
    if not osp.isdir(folder):
        raise DataError(f'{key}.data_prefix.img: the folder {folder!r} does not exist')
    names = [image['file_name'] for image in coco['images'][:CHECKED_FILES]]
    missing = [name for name in names if not osp.isfile(osp.join(folder, name))]
    if missing:
        raise DataError(f'{key}: {len(missing)} of the first {len(names)} images are not in {folder!r}, the first one '
                        f'is {missing[0]!r}')


def _check_boxes(key: str, coco: dict, path: str, zero_size_boxes: str) -> None:
    ids = {image['id'] for image in coco['images']}
    empty = []
    for note in coco.get('annotations') or []:
        box = note.get('bbox')
        if box is None or len(box) != 4 or not all(math.isfinite(v) for v in box):
            raise DataError(f'{key}.ann_file: annotation {note.get("id")} in {path!r} has bbox {box}; four finite '
                            'numbers [x, y, width, height] in pixels are expected')
        if note['image_id'] not in ids:
            raise DataError(f'{key}.ann_file: annotation {note.get("id")} in {path!r} is of image {note["image_id"]}, '
                            'which the file does not list')
        if box[2] <= 0 or box[3] <= 0:
            empty.append(note['id'])
    if empty and zero_size_boxes == 'error':
        raise DataError(f'{key}.ann_file: {len(empty)} boxes in {path!r} have no area, e.g. annotations {empty[:5]}; '
                        "mend them, or train without them: data_check=dict(zero_size_boxes='skip')")
    if empty:
        print_log(f'{path}: {len(empty)} boxes without area are left out, e.g. annotations {empty[:5]}', 'current',
                  level=30)
