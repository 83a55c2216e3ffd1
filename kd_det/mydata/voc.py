"""Pascal VOC XML, one file for each image."""
import xml.etree.ElementTree as ElementTree
from pathlib import PurePosixPath

from ..datasets.voc_to_coco import read_xml
from ..errors import DataError
from .files import Files, lines_of
from .found import ALL, Found, Part, Picture, Thing
from .parts import by_word, called, folder_word


def voc_files(files: Files) -> list[str]:
    """Names of the XML files whose root is ``annotation``."""
    return [name for name in files.of('.xml') if _root(files.path(name)) == 'annotation']


def _root(path: str) -> str | None:
    """Tag of the outermost element; that of a broken file is 'annotation': it is reported when it is read."""
    try:
        for _, element in ElementTree.iterparse(path, events=('start',)):
            return element.tag
    except (ElementTree.ParseError, OSError):
        return 'annotation'
    return None


def read_voc(files: Files, names: list[str], given: dict[str, str]) -> Found:
    """The parts of a data set in VOC's format; they are told by image sets (``ImageSets/Main``) or by folders.

    Corners count from 1 and lie inside the box, as VOC's own do: x = xmin - 1, width = xmax - xmin + 1.

    Args:
        names: what :func:`voc_files` found.
        given: part -> folder of XML files, or image set (.txt), from the command line.

    Raises:
        DataError: a file that cannot be read; image sets that name what is not there.
    """
    groups, remarks = _groups(files, names, given)
    parts = {}
    for part, members in groups.items():
        pictures = [_picture(files, name) for name in members]
        occurring = sorted({thing.label for picture in pictures for thing in picture.things})
        parts[part] = Part(given.get(part) or f'{len(members)} XML files, e.g. {members[0]}', pictures, occurring)
    return Found('voc', parts, remarks)


def _picture(files: Files, name: str) -> Picture:
    path = files.path(name)
    try:
        size, objects = read_xml(path)
    except (ValueError, OSError) as error:
        raise DataError(f'--data: {path}: {error}') from error
    things = []
    for i, (label, (x0, y0, x1, y1), difficult) in enumerate(objects, 1):
        if not label:
            raise DataError(f'--data: {path}: object {i} has no <name>')
        things.append(Thing(label, [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1], f'object {i}', crowd=difficult))
    file = files.image_of_stem(name)
    if file is None:
        inside = ElementTree.parse(path).getroot().findtext('filename') or f'{PurePosixPath(name).stem}.jpg'
        file = files.image_called(inside.strip(), name, ('images', 'JPEGImages')) or inside.strip()
    return Picture(file, name, things, said=size)


def _groups(files: Files, names: list[str], given: dict[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    if given:
        return {part: _given(files, names, part, place) for part, place in given.items()}, []
    sets = [name for name in files.of('.txt') if PurePosixPath(name).parent.parts[-2:] == ('ImageSets', 'Main')
            and '_' not in PurePosixPath(name).stem and called(name)]
    if not sets:
        words: dict[str | None, list[str]] = {}
        for name in names:
            words.setdefault(folder_word(name), []).append(name)
        return by_word(words, 'XML files')
    words = {called(name): _members(files, names, name) for name in sets}
    found, remarks = by_word(words, 'images of the image set')
    # without a set for training, everything is one pool, each file once
    return ({ALL: names} if ALL in found else found), remarks


def _members(files: Files, names: list[str], image_set: str) -> list[str]:
    stems = {PurePosixPath(name).stem: name for name in names}
    wanted = [line.split()[0] for line in lines_of(files.path(image_set))]
    missing = [stem for stem in wanted if stem not in stems]
    if missing or not wanted:
        raise DataError(f'--data: {files.path(image_set)}: ' + (
            f'names {len(missing)} images without an XML file, e.g. {missing[0]!r}' if missing else 'names no image'))
    return [stems[stem] for stem in wanted]


def _given(files: Files, names: list[str], part: str, place: str) -> list[str]:
    if place.endswith('.txt') and place in files.all:
        return _members(files, names, place)
    found = [name for name in names if PurePosixPath(name).is_relative_to(place)]
    if not found:
        raise DataError(f'--{part} {place}: no VOC annotations (.xml) below that folder of {files.root!r}, and no such '
                        'image set')
    return found
