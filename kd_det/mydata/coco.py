"""COCO JSON: which files of a folder are, and what they hold."""
import json
from typing import Any

from ..errors import DataError
from .files import Files
from .found import ALL, Found, Part, Picture, Thing
from .parts import assign, word_of

NEEDED = ('images', 'annotations', 'categories')


def coco_files(files: Files) -> dict[str, dict]:
    """Name -> content of every JSON file that is in COCO's format."""
    found = {}
    for name in files.of('.json'):
        content = read_json(files.path(name))
        if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in NEEDED):
            found[name] = content
    return found


def read_json(path: str) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is not JSON.
    """
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (ValueError, OSError) as error:
        raise DataError(f'--data: {path!r} is no JSON that can be read ({error}); mend it or take it away') from error


def read_coco(files: Files, contents: dict[str, dict], given: dict[str, str]) -> Found:
    """The parts of a data set in COCO's format.

    Args:
        contents: what :func:`coco_files` found.
        given: part -> annotation file, from the command line; where there is any, nothing is guessed.

    Raises:
        DataError: files that nobody knows what they are for; annotations that break the format; several files of one
            part.
    """
    chosen, remarks = (given, []) if given else _chosen(list(contents))
    for part, name in chosen.items():
        if name not in contents:
            raise DataError(f'--{part} {name}: no COCO file of that name in {files.root!r}; there are '
                            f'{", ".join(sorted(contents))}')
    return Found('coco', {part: _part(files, name, contents[name]) for part, name in chosen.items()}, remarks)


def _chosen(names: list[str]) -> tuple[dict[str, str], list[str]]:
    if len(names) == 1:
        return {ALL: names[0]}, []
    words: dict[str | None, list[str]] = {}
    for name in names:
        words.setdefault(word_of(name), []).append(name)
    chosen, _ = assign(list(words))
    if not chosen:
        raise DataError(f'--data: several annotation files, and none is called train: {", ".join(names)}; say which is '
                        'which: --train FILE --val FILE')
    for part, word in chosen.items():
        if len(words[word]) > 1:
            raise DataError(f'--data: several annotation files for {part}: {", ".join(words[word])}; say which: '
                            f'--{part} FILE')
    found = {part: words[word][0] for part, word in chosen.items()}
    rest = [name for name in names if name not in found.values()]
    return found, [f'not used: {", ".join(rest)}'] if rest else []


def _part(files: Files, name: str, coco: dict) -> Part:
    path = files.path(name)
    labels = {}
    for category in coco['categories']:
        if not isinstance(category, dict) or not _is_id(category.get('id')) \
                or not isinstance(category.get('name'), str) or not category['name'].strip():
            raise DataError(f'--data: {path}: the category {category!r}; dict(id=..., name=...) is expected')
        labels[category['id']] = category['name']
    if len(set(labels.values())) != len(coco['categories']):
        raise DataError(f'--data: {path}: category ids or names that are not different: '
                        f'{[(c["id"], c["name"]) for c in coco["categories"]]}')
    pictures = {}
    for image in coco['images']:
        if not isinstance(image, dict) or not _is_id(image.get('id')) or not isinstance(image.get('file_name'), str):
            raise DataError(f'--data: {path}: the image {image!r}; dict(id=..., file_name=...) is expected')
        if image['id'] in pictures:
            raise DataError(f'--data: {path}: two images have the id {image["id"]!r}')
        word = word_of(name) or ''
        file = files.image_called(image['file_name'], name, ('images', f'images/{word}', word))
        said = (image['width'], image['height']) if image.get('width') and image.get('height') else None
        if said and not all(map(_is_number, said)):
            raise DataError(f'--data: {path}: the image {image["id"]!r} has width and height {said!r}; numbers of '
                            'pixels are expected')
        # one that is missing is reported with all the others, by the name that the file gives it
        pictures[image['id']] = Picture(file or image['file_name'], name, said=said)
    for note in coco['annotations']:
        _add(path, pictures, labels, note)
    return Part(name, list(pictures.values()), list(labels.values()))


def _add(path: str, pictures: dict, labels: dict, note: Any) -> None:
    place = f'annotation {note.get("id")}' if isinstance(note, dict) else f'annotation {note!r}'
    if not isinstance(note, dict) or not _is_id(note.get('image_id')) or note['image_id'] not in pictures:
        found = f', {note.get("image_id")!r}' if isinstance(note, dict) else ''
        raise DataError(f'--data: {path}: {place} is of an image that the file does not list{found}; image_id is '
                        'the id of one of "images"')
    if not _is_id(note.get('category_id')) or note['category_id'] not in labels:
        raise DataError(f'--data: {path}: {place} is of category {note.get("category_id")!r}; the categories are '
                        f'{labels}')
    box = note.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DataError(f'--data: {path}: {place} has bbox {str(box)[:80]}; [x, y, width, height] in pixels is '
                        'expected')
    outline = note.get('segmentation') or None
    if outline is not None and not isinstance(outline, (list, dict)):
        raise DataError(f'--data: {path}: {place} has segmentation {outline!r}; polygons or a run-length code are '
                        'expected')
    if note.get('iscrowd', 0) not in (0, 1):
        raise DataError(f'--data: {path}: {place} has iscrowd {note["iscrowd"]!r}; 0 or 1 is expected')
    pictures[note['image_id']].things.append(Thing(labels[note['category_id']], list(map(float, box)), place,
                                                   bool(note.get('iscrowd')), outline))


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
