"""Is an annotation file what it must be for MMDetection: every field there, every reference to something that exists.
"""
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..errors import DataError

IMAGE_FIELDS = ('id', 'file_name', 'width', 'height')
NOTE_FIELDS = ('id', 'image_id', 'category_id', 'bbox', 'area')


def check_annotations(key: str, coco: dict, path: str, evaluated: bool, unknown_categories: str = 'error') -> list[str]:
    """Examine an annotation file in COCO format.

    Args:
        key (str): of the data set, for messages.
        coco (dict): the file's content.
        path (str): the file.
        evaluated (bool): whether COCO's evaluation reads it, which needs ``iscrowd``.
        unknown_categories (str): ``'error'``, or ``'skip'`` to say it and go on.

    Returns:
        list[str]: warnings.

    Raises:
        DataError: naming the file, the entry and what would do.
    """
    what = f'{key}.ann_file: {path!r}'
    for name in ('images', 'annotations', 'categories'):
        if not isinstance(coco.get(name) or [], list) or not all(isinstance(one, dict) for one in coco.get(name) or []):
            raise DataError(f'{what}: "{name}" must be a list of objects {{...}}, as COCO\'s is')
    images, notes = coco['images'], coco.get('annotations') or []
    _fields(what, 'images', images, IMAGE_FIELDS)
    _fields(what, 'annotations', notes, NOTE_FIELDS + (('iscrowd',) if evaluated else ()))
    _fields(what, 'categories', coco['categories'], ('id', 'name'))
    for kind, entries in (('images', images), ('annotations', notes), ('categories', coco['categories'])):
        twice = [one for one, count in Counter(str(entry['id']) for entry in entries).items() if count > 1]
        if twice:
            raise DataError(f'{what}: {len(twice)} ids of its {kind} stand there twice, e.g. {twice[:5]}; ids must '
                            'differ')
    names = Counter(category['name'] for category in coco['categories'])
    if twice := [name for name, count in names.items() if count > 1]:
        raise DataError(f'{what}: the categories {twice} stand there twice; labels are places in the list of '
                        'categories')
    for image in images:
        if not all(_is_number(image[side]) and image[side] > 0 for side in ('width', 'height')):
            raise DataError(f'{what}: image {image["id"]} has width {image["width"]!r} and height {image["height"]!r}; '
                            'numbers of pixels are expected')
    _references(what, notes, {image['id'] for image in images})
    return _categories(what, notes, coco['categories'], unknown_categories)


def _fields(what: str, kind: str, entries: list[dict], wanted: Iterable[str]) -> None:
    for field in wanted:
        without = [i for i, entry in enumerate(entries) if field not in entry]
        if without:
            first = entries[without[0]]
            raise DataError(f'{what}: {len(without)} of {len(entries)} {kind} have no {field!r}, the first is '
                            f'{kind}[{without[0]}] with {sorted(first)}'
                            + ('; add iscrowd=0 to single objects' if field == 'iscrowd' else
                               '; width * height of the box will do' if field == 'area' else ''))


def _references(what: str, notes: list[dict], ids: set) -> None:
    for note in notes:
        box = note['bbox']
        if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(_is_number(v) for v in box):
            raise DataError(f'{what}: annotation {note["id"]} has bbox {box}; four finite numbers [x, y, width, '
                            'height] in pixels are expected')
        if not _is_number(note['area']):
            raise DataError(f'{what}: annotation {note["id"]} has area {note["area"]!r}; a number is expected')
        if note['image_id'] not in ids:
            raise DataError(f'{what}: annotation {note["id"]} is of image {note["image_id"]!r}, which the file does '
                            'not list' + _other_type(note['image_id'], ids))


def _categories(what: str, notes: list[dict], categories: list[dict], policy: str) -> list[str]:
    """Annotations of a category that the file does not have; MMDetection leaves them out without a word."""
    ids = {category['id'] for category in categories}
    unknown = Counter(repr(note['category_id']) for note in notes if note['category_id'] not in ids)
    if not unknown:
        return []
    first = next(note['category_id'] for note in notes if note['category_id'] not in ids)
    listed = ', '.join(f'{name} ({n} times)' for name, n in unknown.most_common(5))
    text = (f'{what}: {sum(unknown.values())} of {len(notes)} annotations have a category_id that is none of its '
            f'categories {sorted(ids, key=str)[:10]}: {listed}' + _other_type(first, ids))
    if policy == 'error':
        raise DataError(text
                        + ". Mend them, or train without these objects: data_check=dict(unknown_categories='skip')")
    return [text + '; they are left out']


def _other_type(found: Any, ids: set) -> str:
    """Numbers written as texts, or the other way round."""
    alike = next((one for one in ids if str(one) == str(found)), None)
    return '' if alike is None else f'; there is {alike!r}, which is {type(alike).__name__}, not {type(found).__name__}'


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
