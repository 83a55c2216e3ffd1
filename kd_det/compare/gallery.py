"""The images of a report: chosen, scaled, and with what each detector finds and misses in them, as data for a page."""
import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
from pycocotools.coco import COCO

from ..errors import CompareError
from .error_types import CORRECT, IGNORED, TYPES, Errors
from .sample import Photo, Sample

SIDE = 360
"""Pixels of the longer side of an image in the page."""
QUALITY = 78
"""Of its JPEG: about 20 KB a photograph."""
PER_IMAGE = 30
"""Detections of a detector that an image shows at most, the best."""
LOWEST = 0.05
"""Detections below this score are not in the page."""
KINDS = (CORRECT, *TYPES, IGNORED)


@dataclass
class Gallery:
    """What the page shows.

    Attributes:
        names: of the detectors.
        classes: by label.
        errors: by detector, on all images of the sample.
        count, total: images of the sample, and of the set that it is taken from.
        images: one dict an image, see :func:`as_data`.
    """
    names: list[str]
    classes: list[str]
    errors: list[Errors]
    count: int
    total: int
    images: list[dict]


def make_gallery(sample: Sample, names: Sequence[str], detections: Sequence[Sequence[dict]], errors: Sequence[Errors],
                 number: int, score: float = 0.3) -> Gallery:
    """Choose ``number`` images of a sample, those on whose objects the detectors disagree most.

    Args:
        sample: what was looked at.
        names: of the detectors.
        detections, errors: of each, as :func:`.sample.detect` and :func:`.error_types.find_errors` give them.
        number: images.
        score: from which on a detection counts as one, for the choice.
    """
    found = [_found(one, theirs) for one, theirs in zip(detections, errors)]

    def disagreement(photo: Photo) -> int:
        return sum(len({of_one.get(thing['id'], 0.0) >= score for of_one in found}) > 1
                   for thing in sample.objects(photo))
    order = sorted(range(len(sample.photos)), key=lambda i: (-disagreement(sample.photos[i]), i))
    chosen = sorted(order[:number])
    images = [as_data(sample.truth, sample.photos[i], detections, errors, found) for i in chosen]
    return Gallery(list(names), list(sample.classes), list(errors), len(sample.photos), sample.total, images)


def _found(detections: Sequence[dict], errors: Errors) -> dict[int, float]:
    """Annotation -> the score of the detection that is right about it."""
    return {target: one['score'] for one, kind, target in zip(detections, errors.types, errors.targets)
            if kind == CORRECT}


def as_data(truth: COCO, photo: Photo, detections: Sequence[Sequence[dict]], errors: Sequence[Errors],
            found: Sequence[dict[int, float]]) -> dict:
    """One image for the page's script; boxes are [x, y, width, height] in pixels of the scaled image.

    Returns:
        dict: ``w``, ``h``, ``src`` (a data URL), ``name``; ``objects``: [box, label, by detector the score that finds
        it, 0 where none does]; ``detections``: by detector [box, label, score, place in :data:`KINDS`].
    """
    source, (width, height) = thumbnail(photo.path)
    scale = width / photo.width
    things = [thing for thing in truth.imgToAnns[photo.id] if not thing['iscrowd']]

    def box(values: Sequence[float]) -> list[float]:
        return [round(value * scale, 1) for value in values]
    shown = []
    for one, theirs in zip(detections, errors):
        rows = [[box(row['bbox']), row['category_id'], round(row['score'], 3), KINDS.index(kind)]
                for row, kind in zip(one, theirs.types) if row['image_id'] == photo.id and row['score'] >= LOWEST]
        shown.append(sorted(rows, key=lambda row: -row[2])[:PER_IMAGE])
    return dict(w=width, h=height, src=source, name=photo.path.replace('\\', '/').rsplit('/', 1)[-1], detections=shown,
                objects=[[box(thing['bbox']), thing['category_id'], [round(of_one.get(thing['id'], 0.0), 3)
                                                                     for of_one in found]] for thing in things])


def thumbnail(path: str) -> tuple[str, tuple[int, int]]:
    """An image as a data URL, at most :data:`SIDE` pixels a side, and its (width, height).

    Raises:
        CompareError: it cannot be read.
    """
    image = cv2.imread(path)
    if image is None:
        raise CompareError(f'image {path!r} cannot be read')
    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    packed = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return 'data:image/jpeg;base64,' + base64.b64encode(packed).decode(), size
