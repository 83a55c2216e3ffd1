"""A made long tail: a data set with many images of some classes and few of others."""
import json
import random
from collections.abc import Sequence

from ..errors import DataError
from ..files import write_whole


def images_per_class(coco: dict) -> dict[str, int]:
    """In how many images each class has an object (crowds do not count), in the order of the file's categories.

    Args:
        coco: the content of a COCO annotation file.
    """
    seen: dict[int, set] = {category['id']: set() for category in coco['categories']}
    for note in coco['annotations']:
        if note['category_id'] in seen and not note.get('iscrowd'):
            seen[note['category_id']].add(note['image_id'])
    return {category['name']: len(seen[category['id']]) for category in coco['categories']}


def targets(counts: dict[str, int], ratio: float, order: Sequence[str] | None = None) -> dict[str, int]:
    """How many images each class may have::

        n_k = max(1, round(n_0 * ratio^(-k / (K - 1)))),  k = 0 ... K - 1 in ``order``, n_0 = images of the first class

    Args:
        counts: images of each class.
        ratio: of the first class's images to the last one's, above 1.
        order: class names, the most frequent first; None: by ``counts``, falling.

    Raises:
        DataError: a ratio that makes no tail, an order that is not of these classes, fewer than two classes.
    """
    order = sorted(counts, key=lambda name: -counts[name]) if order is None else list(order)
    if sorted(order) != sorted(counts):
        raise DataError(f'--order: found {order}; each of {list(counts)} once is expected')
    if not ratio > 1:
        raise DataError(f'--ratio: found {ratio}; a number above 1 is expected')
    if len(order) < 2:
        raise DataError(f'one class, {order}, has no tail')
    return {name: max(1, round(counts[order[0]] * ratio**(-k / (len(order) - 1)))) for k, name in enumerate(order)}


def long_tail(coco: dict, ratio: float, seed: int, order: Sequence[str] | None = None) -> dict:
    """A part of a data set whose classes have exponentially falling numbers of images.

    Images are looked at in an order drawn by ``seed``, those with rare classes first; one is taken if no class in it
    has as many as :func:`targets` says. Whole images are taken or left: an object without its annotation would be
    taught as background. Classes that come together in one image may therefore stay below their targets. Images without
    objects are left out.

    Raises:
        DataError: as :func:`targets`; a class that is left without an image.
    """
    limits = targets(images_per_class(coco), ratio, order)
    names = {category['id']: category['name'] for category in coco['categories']}
    classes: dict[int, set[str]] = {image['id']: set() for image in coco['images']}
    for note in coco['annotations']:
        classes[note['image_id']].add(names[note['category_id']])
    images = sorted((image for image in coco['images'] if classes[image['id']]), key=lambda image: image['id'])
    random.Random(seed).shuffle(images)
    # stable: the draw decides among equals
    images.sort(key=lambda image: min(limits[name] for name in classes[image['id']]))
    taken, count = set(), dict.fromkeys(limits, 0)
    for image in images:
        if all(count[name] < limits[name] for name in classes[image['id']]):
            taken.add(image['id'])
            for name in classes[image['id']]:
                count[name] += 1
    empty = [name for name, number in count.items() if not number]
    if empty:
        raise DataError(f'no image is left for {empty}: they stand only beside classes that have enough; a smaller '
                        '--ratio, or another --order')
    return dict(coco, images=[image for image in coco['images'] if image['id'] in taken],
                annotations=[note for note in coco['annotations'] if note['image_id'] in taken])


def write_long_tail(annotations: str, ratio: float, seed: int, out: str, order: Sequence[str] | None = None) -> str:
    """Write the long tail of ``annotations`` to ``out``; returns a table: class, images, of how many.

    Raises:
        DataError: no COCO file, and whatever :func:`long_tail` refuses.
    """
    try:
        with open(annotations, encoding='utf-8') as file:
            coco = json.load(file)
        before = images_per_class(coco)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{annotations!r} cannot be read as a COCO annotation file: {error!r}') from error
    made = long_tail(coco, ratio, seed, order)
    write_whole(out, json.dumps(made))
    after = images_per_class(made)
    width = max(map(len, after))
    rows = [f'  {name:<{width}}  {after[name]:5d} of {before[name]}' for name in sorted(after, key=lambda n: -after[n])]
    return '\n'.join([f'{out}: {len(made["images"])} of {len(coco["images"])} images', *rows])
