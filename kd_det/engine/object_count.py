"""Which of the objects that an annotation file states MMDetection trains on, by class; the others vanish silently
there.
"""
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

SHOWN = 10
LOUD = 0.1  # share of a class's objects that may vanish before it is a warning
CORNERS = 0.2  # share of boxes that must leave their image for a file to be taken for one of corners


@dataclass
class ObjectCount:
    """What a ``CocoDataset`` makes of its annotation file.

    Attributes:
        images: how many it has; ``empty`` of them without an object.
        trained: class -> objects.
        lost: class -> reason -> objects that are not.
    """

    images: int = 0
    empty: int = 0
    trained: Counter = field(default_factory=Counter)
    lost: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))

    def stated(self, name: str) -> int:
        """Objects of a class in the file."""
        return self.trained[name] + sum(self.lost[name].values()) if name in self.lost else self.trained[name]


def count_objects(coco: dict, classes: list[str] | tuple[str, ...], dataset: dict) -> ObjectCount:
    """Apply the rules of ``CocoDataset`` to a file's content.

    Left out are annotations marked ``ignore``, boxes that lie outside the image or are thinner than a pixel, areas of
    0, and images that ``filter_cfg`` takes out; crowds take no part as objects. Objects of classes that the data set
    does not name do not count as lost.

    Args:
        coco (dict): a file that :func:`kd_det.engine.annotation_check.check_annotations` has passed.
        classes: those of the data set.
        dataset (dict): its config.
    """
    names = {category['id']: category['name'] for category in coco['categories'] if category['name'] in classes}
    of_image = defaultdict(list)
    for note in coco.get('annotations') or []:
        if note['category_id'] in names:
            of_image[note['image_id']].append(note)
    test_mode, filters = dataset.get('test_mode', False), dataset.get('filter_cfg') or {}
    smallest = 0 if test_mode else filters.get('min_size', 0)
    drop_empty = not test_mode and filters.get('filter_empty_gt', False)
    found = ObjectCount()
    for image in _chosen(coco['images'], dataset.get('indices')):
        notes = of_image[image['id']]
        small = min(image['width'], image['height']) < smallest
        reasons = [f'in an image with a side below {smallest} pixels (filter_cfg.min_size)' if small else
                   _reason(note, image) for note in notes]
        for note, reason in zip(notes, reasons):
            name = names[note['category_id']]
            if reason is None:
                found.trained[name] += 1
            else:
                found.lost[name][reason] += 1
        if not small and (notes or not drop_empty):
            found.images += 1
            found.empty += None not in reasons
    return found


def _reason(note: dict, image: dict) -> str | None:
    """Why an object is none for training; None: it is one. In MMDetection's order."""
    x, y, width, height = note['bbox']
    if note.get('ignore', False):
        return 'marked "ignore"'
    if min(x + width, image['width']) <= max(x, 0) or min(y + height, image['height']) <= max(y, 0):
        return 'outside the image as its width and height are stated' if min(width, height) > 0 else 'without area'
    if note['area'] <= 0:
        return 'of area 0'
    if width < 1 or height < 1:
        return 'thinner than a pixel'
    return 'crowd' if note.get('iscrowd', False) else None


def _chosen(images: list[dict], indices: Any) -> list[dict]:
    """``indices`` of a data set: the first so many (the last, if negative), or these."""
    if indices is None:
        return images
    if isinstance(indices, int):
        return images[:indices] if indices >= 0 else images[indices:]
    return [images[i] for i in indices]


def describe(key: str, found: ObjectCount, classes: list[str] | tuple[str, ...]) -> list[tuple[str, str]]:
    """What is to be said of a count, as (level, text): how much there is, and what of it is lost."""
    total = sum(found.trained.values())
    said = [('info', f'{key}: {found.images} images, {found.empty} of them without objects; {total} objects: '
             + _listed([f'{name} {found.trained[name]}' for name in classes]))]
    lost = {name: sum(reasons.values()) for name, reasons in found.lost.items() if reasons}
    if lost:
        loud = any(count > LOUD * found.stated(name) for name, count in lost.items())
        parts = [f'{name} {count} of {found.stated(name)} ('
                 + ', '.join(f'{n} {why}' for why, n in found.lost[name].most_common()) + ')'
                 for name, count in sorted(lost.items(), key=lambda item: -item[1])]
        said.append(('warning' if loud else 'info', f'{key}: {sum(lost.values())} objects of the annotation file are '
                     'left out: ' + _listed(parts)))
    none = [name for name in classes if not found.trained[name]]
    if none and total:
        said.append(('warning', f'{key}: no object at all of {_listed(none)}'))
    return said


def _listed(parts: list[str]) -> str:
    return ', '.join(parts[:SHOWN]) + (f' and {len(parts) - SHOWN} more' if len(parts) > SHOWN else '')


def looks_like_corners(coco: dict) -> list[dict]:
    """Annotations that speak for boxes [x1, y1, x2, y2] where [x, y, width, height] is meant; none where it is not so.

    Every box of the file would be a sound one as corners, and a fifth of them leaves its image as x, y, width, height.
    """
    images = {image['id']: image for image in coco['images']}
    notes = coco.get('annotations') or []
    leaving = []
    for note in notes:
        x, y, width, height = note['bbox']
        image = images[note['image_id']]
        if width <= x or height <= y or width > image['width'] + 1 or height > image['height'] + 1:
            return []
        if x + width > image['width'] + 2 or y + height > image['height'] + 2:
            leaving.append(note)
    return leaving if len(leaving) >= max(CORNERS * len(notes), 1) else []
