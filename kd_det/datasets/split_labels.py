"""A part of a data set with its labels, and the other images without theirs."""
import json
import os.path as osp
import random

from ..errors import DataError
from ..files import write_whole

LABELLED, UNLABELLED = 'labelled.json', 'unlabelled.json'


def split(coco: dict, part: float, seed: int) -> tuple[dict, dict]:
    """COCO annotations of a part of the images, and of the others without annotations.

    Args:
        coco: the whole set.
        part: in (0, 1), of the images; at least one.
        seed: which images.

    Returns:
        (labelled, unlabelled).

    Raises:
        DataError: a class without an object among the labelled images.
    """
    images = sorted(coco['images'], key=lambda image: image['id'])
    count = max(1, round(part * len(images)))
    chosen = {image['id'] for image in random.Random(seed).sample(images, count)}
    kept = [note for note in coco['annotations'] if note['image_id'] in chosen]
    missing = {c['name'] for c in coco['categories']} - {
        c['name'] for c in coco['categories'] if any(note['category_id'] == c['id'] for note in kept)}
    if missing:
        raise DataError(f'no object of {sorted(missing)} in {count} images; another --seed, or a larger --part')
    labelled = dict(coco, images=[image for image in images if image['id'] in chosen], annotations=kept)
    rest = dict(coco, images=[image for image in images if image['id'] not in chosen], annotations=[])
    return labelled, rest


def write_split(annotations: str, part: float, seed: int, out: str, overwrite: bool = False) -> list[str]:
    """Write ``labelled.json`` and ``unlabelled.json`` into the folder ``out``.

    Returns:
        A line about each file.

    Raises:
        DataError: no COCO file, files that are there already, a part without an object of some class.
    """
    if not 0 < part < 1:
        raise DataError(f'--part: found {part}; a number in (0, 1) is expected')
    try:
        with open(annotations, encoding='utf-8') as file:
            coco = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f'{annotations!r} cannot be read as a COCO annotation file: {error}') from error
    if not isinstance(coco, dict) or not {'images', 'annotations', 'categories'} <= set(coco):
        raise DataError(f'{annotations!r} is not in COCO format; it needs "images", "annotations" and "categories"')
    paths = [osp.join(out, name) for name in (LABELLED, UNLABELLED)]
    there = [path for path in paths if osp.exists(path)]
    if there and not overwrite:
        raise DataError(f'{there[0]} is there already; --overwrite replaces it')
    lines = []
    for path, found in zip(paths, split(coco, part, seed)):
        write_whole(path, json.dumps(found))
        lines.append(f'{path}: {len(found["images"])} images, {len(found["annotations"])} objects')
    return lines
