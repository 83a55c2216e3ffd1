"""Look at the data before training starts, and say what is wrong with it in words.

MMDetection drops objects and images silently, takes a file's order of categories for the classes' order, and fails on a
missing folder or a broken image deep inside a worker process.
"""
import json
import logging
import os
import os.path as osp
import shlex
from collections.abc import Iterable, Iterator

from mmengine.config import Config

from ..errors import ConfigError, DataError
from .agreement_check import check_class_numbers, check_evaluator
from .annotation_check import check_annotations
from .distributed import is_first_process
from .image_check import check_images
from .object_count import ObjectCount, count_objects, describe, looks_like_corners

POLICIES = ('zero_size_boxes', 'image_sizes', 'unknown_categories')
Findings = list[tuple[str, str]]
"""(level, text): 'info' or 'warning'."""


def check_data(cfg: Config, loaders: Iterable[str]) -> Findings:
    """Check every ``CocoDataset`` below the named data loaders; on the first process, for all.

    ``data_check=dict(zero_size_boxes='skip', image_sizes='skip', unknown_categories='skip')`` in the config turns an
    error into a warning: boxes without area (COCO has a few; MMDetection leaves them out), images of another size than
    stated, annotations of categories that the file does not have.

    Returns:
        list[tuple[str, str]]: what is to be logged.

    Raises:
        DataError: missing folder, files or images; images that cannot be decoded or have another size; an annotation
            file that lacks fields or refers to what is not there; classes in another order than the file's categories;
            boxes given by corners; no image or object to train on, or not enough for a batch.
    """
    policy = dict(cfg.get('data_check') or {})
    if set(policy) - set(POLICIES) or set(policy.values()) - {'error', 'skip'}:
        raise ConfigError(f'data_check={cfg.data_check}: the keys are {", ".join(POLICIES)}; each is "error" (default) '
                          'or "skip"')
    found: Findings = []
    if not is_first_process():
        return found
    seen: dict[tuple, ObjectCount | None] = {}
    classes: dict = {}
    for loader in loaders:
        if cfg.get(loader) is None:
            continue
        counts = []
        for key, dataset in _coco_datasets(cfg[loader].get('dataset', {}), f'{loader}.dataset'):
            names = (dataset.get('metainfo') or {}).get('classes')
            classes.setdefault(names if isinstance(names, str) or names is None else tuple(names), key)
            if len(classes) > 1:
                (one, there), (other, here) = classes.items()
                raise DataError(f'{here}.metainfo.classes: found {other}, {there} has {one}; a label is a place in '
                                'this list, so that names and order must be the same everywhere')
            spot = (dataset.get('data_root'), dataset.get('ann_file'), str(dataset.get('metainfo')),
                    str(dataset.get('filter_cfg')), str(dataset.get('indices')))
            if spot not in seen:
                seen[spot] = _check_coco(key, dataset, policy, loader.startswith('val'), found)
            counts.append(seen[spot])
            if seen[spot] is not None:
                check_class_numbers(cfg, key, wanted_classes(key, dataset))
                if not loader.startswith('train'):
                    check_evaluator(cfg, loader, annotation_file(dataset))
        if counts and None not in counts:
            _check_amount(cfg, loader, counts, found)
    return found


def report(findings: Findings, logger: logging.Logger) -> None:
    """Log what a check found."""
    for level, text in findings:
        getattr(logger, level)(text)


def _coco_datasets(dataset: dict, key: str) -> Iterator[tuple[str, dict]]:
    """The CocoDataset configs inside wrappers (RepeatDataset, ConcatDataset ...), with their config keys."""
    if isinstance(dataset.get('dataset'), dict):
        yield from _coco_datasets(dataset['dataset'], f'{key}.dataset')
    for i, part in enumerate(dataset.get('datasets') or []):
        yield from _coco_datasets(part, f'{key}.datasets[{i}]')
    if str(dataset.get('type')).rsplit('.', 1)[-1] in ('CocoDataset', "CocoDataset'>"):
        yield key, dataset


def _check_coco(key: str, dataset: dict, policy: dict, evaluated: bool, found: Findings) -> ObjectCount | None:
    root = dataset.get('data_root') or ''
    if '://' in root or (dataset.get('backend_args') or {}).get('backend') not in (None, 'local', 'disk'):
        return None  # a remote store; MMEngine's file backend reports what it cannot read
    if root and not osp.isdir(root):
        raise DataError(f'{key}.data_root: the folder {root!r} does not exist. Put or link the data set there, or say '
                        'where it is with --data-root PATH' + _hint(root))
    if not isinstance(dataset.get('ann_file'), str):
        raise DataError(f'{key}.ann_file: found {dataset.get("ann_file")!r}; an annotation file in COCO format is '
                        'expected')
    path = annotation_file(dataset)
    coco = _read(key, path)
    found += [('warning', text) for text in check_annotations(key, coco, path, evaluated,
                                                              policy.get('unknown_categories', 'error'))]
    classes = _check_classes(key, dataset, coco, path)
    found += [('warning', text) for text in check_images(key, dataset, coco, root, policy.get('image_sizes', 'error'))]
    found += [('warning', text) for text in _check_boxes(key, coco, path, policy.get('zero_size_boxes', 'error'))]
    count = count_objects(coco, classes, dataset)
    found += describe(key, count, classes)
    return count


def annotation_file(dataset: dict) -> str:
    """Where a data set's annotations are."""
    return osp.join(dataset.get('data_root') or '', dataset['ann_file'])


def _read(key: str, path: str) -> dict:
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
    return coco


def _hint(root: str) -> str:
    """The command that makes a data set which has one."""
    if osp.basename(root.rstrip('/')) != 'digits':
        return ''
    return f'. Make it with: kd-det data digits --out {shlex.quote(root)}'


def wanted_classes(key: str, dataset: dict) -> list[str]:
    """The class names of a data set, in order."""
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
    return list(wanted)


def _check_classes(key: str, dataset: dict, coco: dict, path: str) -> tuple[str, ...]:
    found, wanted = [c['name'] for c in coco['categories']], wanted_classes(key, dataset)
    missing = [c for c in wanted if c not in found]
    if missing:
        raise DataError(f'{key}.metainfo.classes: {path!r} has no {missing}; its categories are {found}. MMDetection '
                        'would train without the missing classes')
    order = [name for name in found if name in wanted]
    if order != wanted:
        raise DataError(f'{key}.metainfo.classes: found {tuple(wanted)}, and {path!r} has its categories in the order '
                        f'{tuple(order)}. MMDetection numbers labels by the file, so that names and labels would not '
                        'belong together; write the classes in the file\'s order, or reorder its categories')
    return tuple(wanted)


def _check_boxes(key: str, coco: dict, path: str, zero_size_boxes: str) -> list[str]:
    corners = looks_like_corners(coco)
    if corners:
        raise DataError(f'{key}.ann_file: the boxes in {path!r} look like corners [x1, y1, x2, y2]: as [x, y, width, '
                        f'height] {len(corners)} of {len(coco["annotations"])} leave their image, e.g. annotation '
                        f'{corners[0]["id"]} with {corners[0]["bbox"]}, and as corners all of them are sound. COCO\'s '
                        'are [x, y, width, height]')
    empty = [note['id'] for note in coco.get('annotations') or [] if note['bbox'][2] <= 0 or note['bbox'][3] <= 0]
    if empty and zero_size_boxes == 'error':
        raise DataError(f'{key}.ann_file: {len(empty)} boxes in {path!r} have no area, e.g. annotations {empty[:5]}; '
                        "mend them, or train without them: data_check=dict(zero_size_boxes='skip')")
    return [f'{path}: {len(empty)} boxes without area are left out, e.g. annotations {empty[:5]}'] if empty else []


def _check_amount(cfg: Config, loader: str, counts: list[ObjectCount], found: Findings) -> None:
    """Something is left to train on, and enough for one batch."""
    images, objects = sum(count.images for count in counts), sum(sum(count.trained.values()) for count in counts)
    why = '; '.join(text for level, text in found if loader in text) or 'the annotation file states none'
    if not images:
        raise DataError(f'{loader}.dataset: no image is left of what the annotation file lists: {why}')
    learns = loader.startswith('train') and (cfg.get('model') or {}).get('ground_truth', True)
    if not objects and learns:
        raise DataError(f'{loader}.dataset: no object is left to train on: {why}')
    if not objects:
        found.append(('warning', f'{loader}.dataset: no object in it; AP has no meaning there'))
    config = cfg[loader]
    drops = config.get('drop_last', False) or (config.get('batch_sampler') or {}).get('drop_last', False)
    batch, processes = config.get('batch_size') or 1, int(os.environ.get('WORLD_SIZE', '1'))
    if loader.startswith('train') and drops and images * _times(config.get('dataset')) < batch * processes:
        raise DataError(f'{loader}: {images} images are too few for one batch of {batch} in each of {processes} '
                        'process(es), and drop_last=True leaves out what is less; set a smaller batch_size')


def _times(dataset: dict | None) -> float:
    """How often wrappers repeat a data set."""
    if not isinstance(dataset, dict):
        return 1
    own = float('inf') if 'oversample_thr' in dataset else dataset.get('times', 1)  # class balance: as it sees fit
    return own * _times(dataset.get('dataset'))
