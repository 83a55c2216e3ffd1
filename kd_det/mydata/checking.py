"""What is wrong with a data set, in words, before anything is written or trained."""
import math
import os.path as osp
from collections import Counter

from ..datasets.voc_to_coco import listing
from ..engine.object_count import looks_like_corners
from ..errors import DataError
from .as_coco import coco_of
from .files import image_size
from .found import ALL, TRAIN, VAL, Found, Part, Picture, Thing

SIDES_MAY_DIFFER = 1  # pixels between what an annotation says of a picture and what the file is


def check(root: str, found: Found, skip_bad_boxes: bool = False) -> list[str]:
    """Look at every picture and box; sizes are filled in, boxes are clipped to their pictures, in place.

    Args:
        root: the data folder.
        skip_bad_boxes: leave out boxes that are empty or outside instead of refusing them.

    Returns:
        list[str]: what was changed, one line each.

    Raises:
        DataError: pictures that are missing, broken, of another size than said, or in two parts; boxes in a wrong unit;
            boxes that are empty or outside; classes that differ between parts; nothing annotated.
    """
    _pictures(root, found)
    _overlap(found)
    for part in found.parts.values():
        _unit(root, found.format, part)
    remarks = _boxes(root, found, skip_bad_boxes)
    remarks += _classes(root, found)
    for name, part in found.parts.items():
        if not any(not thing.crowd for _, thing in _boxes_of(part)):
            crowds = ' but crowds or difficult objects' if _boxes_of(part) else ''
            raise DataError(f'--data: nothing{crowds} is annotated in the {len(part.pictures)} images of {name} '
                            f'({osp.join(root, part.source)}); a detector learns nothing from it')
    return remarks


def _pictures(root: str, found: Found) -> None:
    missing, broken, differing = [], [], []
    for part in found.parts.values():
        if not part.pictures:
            raise DataError(f'--data: {osp.join(root, part.source)} lists no images')
        for picture in part.pictures:
            path = osp.join(root, picture.file)
            if not osp.isfile(path):
                missing.append(f'{picture.file}, named in {picture.source}')
                continue
            try:
                picture.size = image_size(path)
            except DataError as error:
                broken.append(str(error).removeprefix('--data: '))
                continue
            if picture.said and any(abs(a - b) > SIDES_MAY_DIFFER for a, b in zip(picture.said, picture.size)):
                differing.append(f'{picture.file} is {picture.size[0]}x{picture.size[1]}, {picture.source} says '
                                 f'{picture.said[0]:g}x{picture.said[1]:g}')
    if missing:
        raise DataError(f'--data: {len(missing)} images are not in {root!r}:{listing(missing)}\nPut them there, or '
                        'take their annotations out')
    if broken:
        raise DataError(f'--data: {len(broken)} images are broken:{listing(broken)}')
    if differing:
        raise DataError(f'--data: {len(differing)} images have another size than their annotations say, so that boxes '
                        f'would lie elsewhere:{listing(differing)}\nGive the images that were annotated (upright, as '
                        'their EXIF data says), or mend width and height')


def _overlap(found: Found) -> None:
    seen: dict[str, str] = {}
    for name, part in found.parts.items():
        twice = [file for file, count in Counter(picture.file for picture in part.pictures).items() if count > 1]
        if twice:
            raise DataError(f'--data: {len(twice)} images are in {name} more than once:{listing(twice)}')
        again = [picture.file for picture in part.pictures if picture.file in seen]
        if again:
            raise DataError(f'--data: {len(again)} images are in {seen[again[0]]} and in {name}:{listing(again)}\nAn '
                            'evaluation on images that were trained on says nothing; take them out of one')
        seen.update((picture.file, name) for picture in part.pictures)


def _boxes_of(part: Part) -> list[tuple[Picture, Thing]]:
    return [(picture, thing) for picture in part.pictures for thing in picture.things]


def _unit(root: str, format: str, part: Part) -> None:
    """Refuse boxes that are shares of the sides, or corners instead of width and height."""
    boxes = _boxes_of(part)
    where = osp.join(root, part.source)
    if not boxes or format == 'yolo':  # its reader has looked
        return
    corner = 1 if format == 'voc' else 0  # the reader has subtracted VOC's first pixel
    values = [value + (corner if i < 2 else 0) for _, thing in boxes for i, value in enumerate(thing.box)]
    if max(values) <= 2 and max(max(picture.size) for picture in part.pictures) > 16:
        picture, thing = boxes[0]
        raise DataError(f'--data: {where}: the boxes look like shares of the image\'s sides, e.g. {thing.box} in '
                        f'{picture.source} ({thing.place}); pixels are expected')
    if format != 'coco':
        return
    if beyond := looks_like_corners(coco_of(part, part.classes)):
        picture, thing = boxes[beyond[0]['id'] - 1]
        raise DataError(f'--data: {where}: the boxes look like corners [x1, y1, x2, y2], e.g. {thing.box} '
                        f'({thing.place}, {picture.file} of {picture.size[0]}x{picture.size[1]}); COCO\'s are [x, y, '
                        'width, height]')


def _boxes(root: str, found: Found, skip: bool) -> list[str]:
    bad, clipped = [], 0
    for part in found.parts.values():
        for picture in part.pictures:
            kept = []
            for thing in picture.things:
                box = _clipped(thing.box, *picture.size)
                if box is None:
                    bad.append(f'{osp.join(root, picture.source)}, {thing.place}: {thing.label} '
                               f'{[round(v, 2) for v in thing.box]} (x, y, width, height) in {picture.file} of '
                               f'{picture.size[0]}x{picture.size[1]}')
                    continue
                clipped += max(abs(a - b) for a, b in zip(box, thing.box)) > 1.5  # VOC's by one pixel is a convention
                thing.box = box
                kept.append(thing)
            picture.things = kept
    if bad and not skip:
        raise DataError(f'--data: {len(bad)} boxes are empty or outside their image:{listing(bad)}\nMend them, or '
                        'leave them out: --skip-bad-boxes')
    remarks = [f'left out: {len(bad)} boxes that are empty or outside their image:{listing(bad)}'] if bad else []
    if clipped:
        remarks.append(f'clipped: {clipped} boxes reached beyond their image')
    thin = [(picture, thing) for part in found.parts.values() for picture, thing in _boxes_of(part)
            if min(thing.box[2:]) < 1]
    if thin:
        picture, thing = thin[0]
        remarks.append(f'WARNING: {len(thin)} boxes are thinner than a pixel, which training leaves out, e.g. '
                       f'{[round(v, 3) for v in thing.box]} in {picture.source} ({thing.place})')
    return remarks


def _clipped(box: list[float], width: int, height: int) -> list[float] | None:
    """x, y, w, h inside the picture; None where nothing is left."""
    if not all(map(math.isfinite, box)) or box[2] <= 0 or box[3] <= 0:
        return None
    x0, y0 = max(box[0], 0.0), max(box[1], 0.0)
    x1, y1 = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    return [x0, y0, x1 - x0, y1 - y0] if x1 > x0 and y1 > y0 else None


def _classes(root: str, found: Found) -> list[str]:
    """What a part has objects of must be a class of the training part; classes that nothing is of are left out.

    Every part then has the training part's classes in its order.
    """
    first = found.parts.get(TRAIN) or found.parts[ALL]
    used = {name: {thing.label for _, thing in _boxes_of(part)} for name, part in found.parts.items()}
    for name, part in found.parts.items():
        if other := sorted(used[name] - set(first.classes)):
            raise DataError(f'--data: {osp.join(root, part.source)} has objects of {other}, the classes of '
                            f'{osp.join(root, first.source)} are {first.classes}; names must be written alike in both')
    everywhere = set().union(*used.values())
    classes = [name for name in first.classes if name in everywhere]
    unused = [name for name in first.classes if name not in everywhere]
    alike = [name for name in classes if name.strip().lower() in [n.strip().lower() for n in classes if n != name]]
    for part in found.parts.values():
        part.classes = list(classes)
    remarks = [f'left out: the classes {unused}, of which there is no object'] if unused else []
    if alike:
        remarks.append(f'WARNING: {alike} are different classes, by nothing but capitals or spaces')
    for name, result in ((TRAIN, 'they cannot be learned'), (VAL, 'what is learned of them cannot be measured')):
        rare = [label for label in classes if name in used and label not in used[name]]
        if rare:
            remarks.append(f'WARNING: no object of {rare} in {name}; {result}')
    return remarks
