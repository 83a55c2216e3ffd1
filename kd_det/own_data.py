"""``data = dict(root=..., classes=...)``: one key of a config for the data set that is trained and evaluated on.

Without it a config for another set in COCO's format repeats root and class names in every loader, evaluator and head.
Our commands expand the key when they read a config; what they dump into a work directory holds the result only.
"""
import glob
import inspect
import json
import os.path as osp
from collections.abc import Iterator
from functools import cache
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from .errors import ConfigError, DataError

AUTO = 'auto'
KEYS = ('root', 'classes', 'train', 'val', 'test', 'images', 'unlabelled')
NAMES = {'train': ('train', 'training', 'trainval'), 'val': ('val', 'valid', 'validation', 'eval', 'dev', 'test'),
         'test': ('test',)}
"""What the parts of a data set are called, the first that is there counts."""
PLACES = ('annotations/{0}.json', '{0}.json', '{0}/_annotations.coco.json', 'annotations/instances_{0}*.json',
          'instances_{0}*.json')
UNLABELLED = ('unlabelled.json', 'annotations/unlabelled.json', 'unlabelled/', 'images/unlabelled/')
"""Where images without labels may be, the first that is there counts."""
KEPT = ('pipeline', 'filter_cfg', 'test_mode', 'backend_args', 'indices')
"""What a data set of another type hands on to the CocoDataset, or UnlabelledImages, that takes its place."""
OTHER_CLASSES = ('rpn_head', 'semantic_head', 'teacher', 'sources', 'peer', 'terms', 'data_preprocessor')
"""Parts of a detector's config whose ``num_classes`` are not the data set's."""


def expand_data(cfg: Config) -> None:
    """Replace the key ``data`` by what it means, in place; a config without it is left alone.

    ``data`` may hold

    - ``root``: the folder (default: the config's ``data_root``);
    - ``classes``: names in order, a text file with one a line, or ``'auto'`` (default): the categories of the training
      annotations in their order;
    - ``train``, ``val``, ``test``: annotation files in COCO's format, below ``root`` or absolute (default: the config's
      own where they are there, else the first that is there of :data:`PLACES`; ``test``: as ``val``);
    - ``images``: the folder that file names are relative to, or ``dict(train=..., val=..., test=...)`` (default: the
      first of the config's own, ``images/``, ``root`` and the annotation file's folder that holds the first image);
    - ``unlabelled``: for a config with an ``unlabelled_dataloader``, the folder of its images or a COCO file that names
      them, below ``root`` or absolute (default: the config's own where it is there, else the first of
      :data:`UNLABELLED`).

    It sets ``data_root``, every data set below the three loaders and ``unlabelled_dataloader`` (one that is no
    CocoDataset becomes one, several joined ones become one), ``metainfo.classes``, the evaluators' ``ann_file`` and
    ``num_classes`` of every head but the RPN's.

    Raises:
        ConfigError: unknown keys and values that cannot be meant.
        DataError: a folder or file that is not there or is not in COCO's format.
    """
    if 'data' not in cfg:
        return
    data = cfg.pop('data')
    if not isinstance(data, dict) or set(data) - set(KEYS):
        raise ConfigError(f'data: found {data!r}; a dict is expected, data=dict(root=..., classes=\'auto\'), its keys '
                          f'are {", ".join(KEYS)}')
    root = osp.join(_text('data.root', data.get('root') or cfg.get('data_root')), '')
    files = {part: _annotations(cfg, data, root, part) for part in ('train', 'val')}
    files['test'] = _annotations(cfg, data, root, 'test') if data.get('test') else files['val']
    classes = _classes(data.get('classes', AUTO), osp.join(root, files['train']))
    folders = {part: _images(cfg, data, root, part, files[part]) for part in files}
    cfg.data_root = root
    if 'metainfo' in cfg:  # the variable that a config's own loaders were made of
        cfg.metainfo = dict(classes=classes)
    for part in ('train', 'val', 'test'):
        loader = cfg.get(f'{part}_dataloader')
        if isinstance(loader, dict) and loader.get('dataset'):
            loader.dataset = _placed(loader.dataset, root, files[part], folders[part], classes)
        if cfg.get(f'{part}_evaluator'):
            cfg[f'{part}_evaluator'] = _evaluator(cfg[f'{part}_evaluator'], osp.join(root, files[part]))
    _place_unlabelled(cfg, data, root)
    if isinstance(cfg.get('model'), dict):
        for path, number in class_numbers(cfg.model, len(classes)).items():
            cfg.merge_from_dict({f'model.{path}': number})


def with_data(cfg: Config, data_root: str | None, classes: list[str] | str | None) -> None:
    """``--data-root`` and ``--classes`` as the key ``data``, in place; other keys that it has stay."""
    given = {key: value for key, value in (('root', data_root), ('classes', classes)) if value is not None}
    if 'data' in cfg and not isinstance(cfg.data, dict):
        raise ConfigError(f'data: found {cfg.data!r}; a dict is expected, data=dict(root=..., classes=\'auto\')')
    cfg.data = {**(cfg.get('data') or {}), **given}


def class_numbers(model: dict, number: int) -> dict[str, int]:
    """Dotted paths below a detector's config -> ``num_classes`` that are not ``number`` yet.

    Heads of every kind (``bbox_head``, ``mask_head``, those of ``roi_head``, lists of a cascade's stages) and losses
    that take the number; a head whose config is silent has its constructor's default. Not the RPN's, and not a
    teacher's.
    """
    found: dict[str, int] = {}

    def walk(value: Any, path: str, name: str) -> None:
        if isinstance(value, (list, tuple)):
            for i, one in enumerate(value):
                walk(one, f'{path}.{i}' if path else str(i), name)
        elif isinstance(value, dict):
            counts = 'num_classes' in value or (name in ('bbox_head', 'mask_head')
                                                and _takes_classes(value.get('type')))
            if counts and value.get('num_classes') != number:
                found[f'{path}.num_classes' if path else 'num_classes'] = number
            for key, one in value.items():
                if key not in OTHER_CLASSES:
                    walk(one, f'{path}.{key}' if path else str(key), key)
    walk(model, '', '')
    return found


@cache
def _takes_classes(kind: Any) -> bool:
    with DefaultScope.overwrite_default_scope('mmdet'):
        cls = MODELS.get(kind) if isinstance(kind, str) else kind
    return cls is not None and any('num_classes' in inspect.signature(base.__init__).parameters for base in cls.__mro__
                                   if '__init__' in vars(base) and base is not object)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f'{key}: found {value!r}; the path of a folder or file is expected')
    return value


def _leaves(dataset: dict) -> Iterator[dict]:
    """The data sets inside wrappers (RepeatDataset, ConcatDataset ...)."""
    inner = [dataset['dataset']] if isinstance(dataset.get('dataset'), dict) else list(dataset.get('datasets') or [])
    for one in inner:
        yield from _leaves(one)
    if not inner:
        yield dataset


def _place_unlabelled(cfg: Config, data: dict, root: str) -> None:
    """Point ``unlabelled_dataloader`` at the images without labels of this data set, in place."""
    loader = cfg.get('unlabelled_dataloader')
    if not isinstance(loader, dict) or not loader.get('dataset'):
        if data.get('unlabelled') is not None:
            raise ConfigError(f'data.unlabelled: found {data["unlabelled"]!r}, and the config has no '
                              'unlabelled_dataloader that would read it; leave it out, or add one')
        return
    own = _first(cfg, 'unlabelled')
    given = data.get('unlabelled')
    tried = [_text('data.unlabelled', given)] if given is not None else \
        [own.get('ann_file') or osp.join((own.get('data_prefix') or {}).get('img') or 'unlabelled', ''), *UNLABELLED]
    place = next((one for one in tried if osp.exists(osp.join(root, one))), None)
    if place is None:
        raise DataError(f'data.unlabelled: {"" if given else "not given, and "}{root!r} holds none of '
                        f'{", ".join(dict.fromkeys(tried))}; give the folder of the images without labels, or a COCO '
                        'file that names them, data.unlabelled=...')
    if osp.isdir(osp.join(root, place)):
        where = dict(ann_file='', data_prefix=dict(img=osp.join(place, '')))
    else:
        where = dict(ann_file=place, data_prefix=dict(img=_images(cfg, data, root, 'unlabelled', place)))
    loader.dataset = _unlabelled(loader.dataset, root, where)


def _unlabelled(dataset: dict, root: str, where: dict) -> ConfigDict:
    """The data set of images without labels on the files given, inside the wrappers that it has."""
    dataset = ConfigDict(dataset)
    if isinstance(dataset.get('dataset'), dict):
        dataset.dataset = _unlabelled(dataset.dataset, root, where)
        return dataset
    if dataset.get('datasets'):
        return _unlabelled(dataset.datasets[0], root, where)
    kept = {key: dataset[key] for key in KEPT if key in dataset and key != 'filter_cfg'}
    return ConfigDict(kept, type='UnlabelledImages', data_root=root, **where)


def _first(cfg: Config, part: str) -> dict:
    return next(_leaves((cfg.get(f'{part}_dataloader') or {}).get('dataset') or {}))


def _annotations(cfg: Config, data: dict, root: str, part: str) -> str:
    """Annotation file of a part, relative to ``root`` or absolute."""
    if data.get(part) is not None:
        return _text(f'data.{part}', data[part])
    own = _first(cfg, part).get('ann_file')
    tried = [own] if isinstance(own, str) and own else []
    tried += [place.format(name) for name in NAMES[part] for place in PLACES]
    if not osp.isdir(root):
        raise DataError(f'data.root: the folder {root!r} does not exist')
    for place in tried:
        if found := sorted(glob.glob(osp.join(glob.escape(root), place))):
            return osp.relpath(found[0], root)
    everywhere = glob.glob(osp.join(glob.escape(root), '**', '*.json'), recursive=True)
    here = sorted(osp.relpath(path, root) for path in everywhere)
    raise DataError(f'data.{part}: not given, and {root!r} holds none of {", ".join(tried[:4])} ...; '
                    + (f'JSON files there: {", ".join(here[:6])}; name one, data.{part}=...' if here else
                       'there is no JSON file at all; kd-det data prepare makes COCO\'s format of VOC and YOLO'))


def _images(cfg: Config, data: dict, root: str, part: str, ann_file: str) -> str:
    """Folder of the images of a part, relative to ``root`` or absolute, with a slash at its end."""
    given = data.get('images')
    if isinstance(given, dict):
        if set(given) - {'train', 'val', 'test', 'unlabelled'}:
            raise ConfigError(f'data.images: found the keys {sorted(given)}; train, val, test and unlabelled are known')
        given = given.get(part, given.get('val') if part == 'test' else None)
    if given is not None:
        return given if isinstance(given, str) and not given else osp.join(_text('data.images', given), '')
    images = _coco(osp.join(root, ann_file), ('images',))['images']
    own = (_first(cfg, part).get('data_prefix') or {}).get('img')
    tried = [own] if isinstance(own, str) else []
    tried += ['images/', '', osp.join(osp.dirname(ann_file), ''), f'images/{part}/', f'{part}/']
    for folder in tried:
        if images and osp.isfile(osp.join(root, folder, str(images[0].get('file_name')))):
            return folder
    name = images[0].get('file_name') if images else None
    raise DataError(f'data.images: {osp.join(root, ann_file)!r} names {name!r}, which is in none of '
                    f'{", ".join(repr(osp.join(root, one)) for one in dict.fromkeys(tried))}; say where, '
                    'data.images=...')


@cache
def _coco_of(path: str, needed: tuple[str, ...], stamp: tuple) -> dict:
    try:
        with open(path, encoding='utf-8') as file:
            coco = json.load(file)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f'data: {path!r} is not JSON ({error})') from error
    if not isinstance(coco, dict) or not all(isinstance(coco.get(key), list) for key in needed):
        raise DataError(f'data: {path!r} is not in COCO\'s format; it needs "images", "annotations" and "categories"')
    return dict(images=coco.get('images', [])[:1], categories=coco.get('categories'))


def _coco(path: str, needed: tuple[str, ...]) -> dict:
    if not osp.isfile(path):
        raise DataError(f'data: there is no annotation file {path!r}')
    return _coco_of(path, needed, (osp.getmtime(path), osp.getsize(path)))


def _classes(classes: Any, train: str) -> tuple[str, ...]:
    if classes == AUTO:
        found = _coco(train, ('images', 'categories'))['categories']
        names = [category.get('name') for category in found if isinstance(category, dict)]
        where = f'data.classes=\'auto\': the categories of {train!r}'
    elif isinstance(classes, str):
        if not osp.isfile(classes):
            raise ConfigError(f'data.classes: found {classes!r}; a list of names, a text file with one a line, or '
                              '\'auto\' is expected')
        with open(classes, encoding='utf-8') as file:
            names = [line.strip() for line in file if line.strip()]
        where = f'data.classes: {classes!r}'
    else:
        names, where = classes, 'data.classes'
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) and name for name in names) \
            or len(set(names)) != len(names):
        raise ConfigError(f'{where}: found {names!r}; class names are expected, at least one, no two alike')
    return tuple(names)


def _placed(dataset: dict, root: str, ann_file: str, images: str, classes: tuple[str, ...]) -> ConfigDict:
    """The data set on the files given, inside the wrappers that it has."""
    dataset = ConfigDict(dataset)
    if isinstance(dataset.get('dataset'), dict):
        dataset.dataset = _placed(dataset.dataset, root, ann_file, images, classes)
        return dataset
    if dataset.get('datasets'):  # parts of another set: this one has a single file
        return _placed(dataset.datasets[0], root, ann_file, images, classes)
    kind = str(dataset.get('type')).removesuffix("'>").rsplit('.', 1)[-1]
    if kind != 'CocoDataset':
        print_log(f'data: {kind} of the config becomes CocoDataset', 'current')
        dataset = ConfigDict({key: dataset[key] for key in KEPT if key in dataset}, type='CocoDataset')
    dataset.update(data_root=root, ann_file=ann_file, data_prefix={**(dataset.get('data_prefix') or {}), 'img': images})
    dataset['metainfo'] = ConfigDict(classes=classes)  # whole: another set's colours are as many as its classes
    return dataset


def _evaluator(evaluator: Any, ann_file: str) -> Any:
    if isinstance(evaluator, (list, tuple)):
        kinds = [_evaluator(one, ann_file) for one in evaluator]
        return [one for i, one in enumerate(kinds) if one not in kinds[:i]]
    if str(evaluator.get('type')).rsplit('.', 1)[-1] != 'CocoMetric':
        return ConfigDict(type='CocoMetric', metric='bbox', classwise=True, ann_file=ann_file)
    return ConfigDict({**evaluator, 'ann_file': ann_file})
