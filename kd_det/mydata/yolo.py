"""YOLO txt: a line for each object, ``class x y w h`` or ``class x1 y1 x2 y2 ...``, in shares of the image's sides."""
import math
import os.path as osp
from pathlib import PurePosixPath

from ..engine.object_count import CORNERS
from ..errors import DataError
from .files import Files, image_size, lines_of
from .found import ALL, Found, Part, Picture, Thing
from .names import LISTS, data_yaml, declared
from .parts import by_word, folder_word

BEYOND = 1.02  # a coordinate above is no share; rounding at the border stays below
"""Labels by hand reach a little over the border; such boxes are clipped."""


def label_files(files: Files) -> dict[str, str | None]:
    """Label file -> its picture; None where a file in a folder of labels has none.

    Label files are those that a picture shares its stem with, and all in a folder called ``labels``.
    """
    found: dict[str, str | None] = {}
    for name in files.of('.txt'):
        pure = PurePosixPath(name)
        if pure.name in LISTS or pure.name.lower().startswith('readme'):
            continue
        picture = files.image_of_stem(name)
        if picture is not None or 'labels' in pure.parent.parts:
            found[name] = picture
    return found


def read_yolo(files: Files, labels: dict[str, str | None], classes: list[str] | None, given: dict[str, str]) -> Found:
    """The parts of a data set in YOLO's format; they are told by ``data.yaml`` or by folders.

    A picture without a label file is one without objects, as in YOLO's own training.

    Args:
        labels: what :func:`label_files` found.
        classes: ``--classes``; None: read beside the labels.
        given: part -> folder of pictures, from the command line.

    Raises:
        DataError: no class names; lines that are no objects; numbers that are no shares; pictures that are missing.
    """
    named = (None, classes) if classes else declared(files)
    if named is None:
        raise DataError(f'--data: YOLO labels in {files.root!r}, and nothing that names their classes; put a '
                        'classes.txt with one name a line beside them, or give --classes NAME NAME ...')
    if orphans := [name for name, picture in labels.items() if picture is None]:
        raise DataError(f'--data: {len(orphans)} label files have no picture, e.g. {files.path(orphans[0])}; put the '
                        'pictures there or take the label files away')
    of_picture: dict[str, str] = {}
    for name, picture in labels.items():
        if picture in of_picture:
            raise DataError(f'--data: {files.path(of_picture[picture])} and {files.path(name)} are both of the picture '
                            f'{picture!r}; rename, so that stems differ, or put pictures and labels in like folders')
        of_picture[picture] = name
    groups, remarks = _groups(files, given)
    parts = {}
    for part, members in groups.items():
        pictures = [_picture(files, name, of_picture.get(name), named) for name in members]
        source = given.get(part) or str(PurePosixPath(members[0]).parent)
        _corners(files, part, pictures)
        bare = sum(name not in of_picture for name in members)
        if bare:
            remarks.append(f'{part}: {bare} of {len(members)} images have no label file; they count as images without '
                           'objects')
        parts[part] = Part(source, pictures, list(named[1]))
    return Found('yolo', parts, remarks)


def _picture(files: Files, name: str, label: str | None, named: tuple[str | None, list[str]]) -> Picture:
    picture = Picture(name, label or name)
    if label is None:
        return picture
    picture.size = width, height = image_size(files.path(name))
    path = files.path(label)
    with open(path, encoding='utf-8', errors='replace') as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                picture.things.append(_thing(f'{path}, line {number}', line.split(), width, height, named))
                picture.things[-1].place = f'line {number}'
    return picture


def _thing(place: str, words: list[str], width: int, height: int, named: tuple[str | None, list[str]]) -> Thing:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) < 5 or len(values) % 2 == 0 or (len(values) > 5 and len(values) < 7) \
            or not all(map(math.isfinite, values)) or values[0] != int(values[0]):
        raise DataError(f'--data: {place}: found {" ".join(words)!r}; class x y w h, or class and the corners of an '
                        'outline, is expected (a confidence behind them must go)')
    if min(values[1:]) < 1 - BEYOND:
        raise DataError(f'--data: {place}: found {" ".join(words)!r}; YOLO\'s numbers are shares of the image\'s '
                        'sides, 0 to 1, and a negative one lies outside')
    if any(value > BEYOND for value in values[1:]):
        raise DataError(f'--data: {place}: found {" ".join(words)!r}; YOLO\'s numbers are shares of the image\'s '
                        f'sides, 0 to 1, and these look like pixels; divide x and w by the width ({width}), y and h by '
                        f'the height ({height})')
    index, names = int(values[0]), named[1]
    if not 0 <= index < len(names):
        raise DataError(f'--data: {place}: class {index}, but {named[0] or "--classes"} names {len(names)}: {names}')
    if len(values) == 5:
        x, y, w, h = values[1:]
        return Thing(names[index], [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height], place)
    xs, ys = [x * width for x in values[1::2]], [y * height for y in values[2::2]]
    return Thing(names[index], [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], place,
                 outline=[[value for pair in zip(xs, ys) for value in pair]])


def _corners(files: Files, part: str, pictures: list[Picture]) -> None:
    """Refuse shares x1 y1 x2 y2 where the centre, width and height are meant.

    As corners every box of the part is a sound one, and as they are meant a fifth of them leaves its image.
    """
    leaving, number = [], 0
    for picture in pictures:
        width, height = picture.size
        for thing in picture.things:
            x, y, w, h = thing.box
            right, bottom = x + w / 2, y + h / 2  # the numbers of the file, in pixels
            number += 1
            if thing.outline or not (w > right and h > bottom and w <= width + 1 and h <= height + 1):
                return
            if x < -2 or y < -2 or x + w > width + 2 or y + h > height + 2:
                leaving.append((picture, thing))
    if len(leaving) >= max(CORNERS * number, 1):
        picture, thing = leaving[0]
        raise DataError(f'--data: {files.path(picture.source)}, {thing.place}, and {len(leaving) - 1} more of {number} '
                        f'boxes of {part} leave their image, and all would be sound as corners x1 y1 x2 y2; YOLO\'s '
                        'numbers are the centre, x y, and width and height')


def _groups(files: Files, given: dict[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    if given:
        found = {part: [name for name in files.images if PurePosixPath(name).is_relative_to(place)]
                 for part, place in given.items()}
        for part, members in found.items():
            if not members:
                raise DataError(f'--{part} {given[part]}: no pictures below that folder of {files.root!r}')
        return found, []
    words: dict[str | None, list[str]] = {}
    lists = _of_yaml(files)
    for name in files.images:
        words.setdefault(lists.get(name) if lists else folder_word(name), []).append(name)
    if lists:
        rest = words.pop(None, [])
        found, remarks = by_word(words, 'images')
        return found, remarks + ([f'not used: {len(rest)} images that data.yaml does not name'] if rest else [])
    if not [word for word in words if word]:
        return {ALL: files.images}, []
    return by_word(words, 'images')


def _of_yaml(files: Files) -> dict[str, str]:
    """Picture -> part, as far as data.yaml's folders and lists are where it says; empty: they are not."""
    described = data_yaml(files)
    if described is None:
        return {}
    name, content = described
    home, found = str(PurePosixPath(name).parent), {}
    for part in ('train', 'val', 'test'):
        entries = content.get(part) or []
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise DataError(f'--data: {files.path(name)}: {part} is {entries!r}; a folder or list of images, or '
                            'several, is expected')
        for entry in entries:
            for base in (content.get('path') or '', ''):
                place = osp.normpath(osp.join(home, str(base), entry)).replace('\\', '/')
                if place.endswith('.txt') and place in files.all:
                    members = [files.image_called(line, place) for line in lines_of(files.path(place))]
                else:
                    members = [one for one in files.images if PurePosixPath(one).is_relative_to(place)]
                found.update((member, part) for member in members if member)
                if members:
                    break
    return found if 'train' in found.values() else {}
