"""Which format a folder's annotations are in."""
from collections import Counter
from pathlib import PurePosixPath

from ..errors import ConfigError, DataError
from .coco import coco_files, read_coco, read_json
from .files import Files
from .found import Found
from .voc import read_voc, voc_files
from .yolo import label_files, read_yolo

FORMATS = ('coco', 'voc', 'yolo')


def read_folder(root: str, format: str | None = None, classes: list[str] | None = None,
                given: dict[str, str] | None = None) -> Found:
    """What a folder of images with annotations holds.

    Args:
        root: the folder.
        format: 'coco', 'voc' or 'yolo'; None: the one that is there.
        classes: names, where labels are numbers without names (YOLO).
        given: part -> annotation file or folder, relative to ``root``.

    Raises:
        ConfigError: a format that is not known.
        DataError: no annotations, of several formats, or of one that is not read here.
    """
    if format not in (None, *FORMATS):
        raise ConfigError(f'--format: found {format!r}; one of {", ".join(FORMATS)} is expected')
    files = Files(root)
    places = {part: PurePosixPath(place).as_posix() for part, place in (given or {}).items() if place}
    if places and 'train' not in places:
        raise ConfigError(f'--{next(iter(places))}: --train is needed beside it')
    there = {}
    if format in (None, 'coco') and (contents := coco_files(files)):
        there['coco'] = contents
    if format in (None, 'voc') and (names := voc_files(files)):
        there['voc'] = names
    if format in (None, 'yolo') and (labels := label_files(files)):
        there['yolo'] = labels
    if len(there) > 1:
        raise DataError(f'--data: {root!r} holds annotations of several formats: {", ".join(there)}; say which count: '
                        '--format NAME')
    if not there:
        raise DataError(_nothing(files, format))
    if 'coco' in there:
        return read_coco(files, there['coco'], places)
    if 'voc' in there:
        return read_voc(files, there['voc'], places)
    return read_yolo(files, there['yolo'], classes, places)


def _nothing(files: Files, format: str | None) -> str:
    """Why there are no annotations: what there is instead."""
    counts = Counter(PurePosixPath(name).suffix.lower() or 'without ending' for name in files.all)
    held = ', '.join(f'{count} {ending}' for ending, count in counts.most_common(6))
    text = f'--data: no {format or "COCO, VOC or YOLO"} annotations in {files.root!r}; it holds {held}. Expected are ' \
        'JSON files in COCO\'s format, VOC XML files, or YOLO txt files with a data.yaml or classes.txt'
    for name in files.of('.json')[:1]:
        content = read_json(files.path(name))
        if isinstance(content, dict) and 'shapes' in content:
            return f'{text}; {name} looks like LabelMe\'s, which is not read: export as COCO or VOC'
        if isinstance(content, dict):
            return f'{text}; {name} has the keys {sorted(content)[:6]}; images, annotations and categories are COCO\'s'
    if counts['.csv'] or counts['.tfrecord'] or counts['.parquet']:
        return f'{text}; tables and records are not read: export as COCO, VOC or YOLO'
    return text
