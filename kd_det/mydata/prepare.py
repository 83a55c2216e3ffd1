"""A folder of images with annotations -> COCO JSON for training, checked."""
import json
import os.path as osp
from dataclasses import dataclass, field

from ..errors import ConfigError, DataError
from ..files import write_whole
from .as_coco import coco_of
from .checking import check
from .formats import read_folder
from .found import Found, Part
from .splitting import split
from .statistics import sides, statistics


@dataclass
class Prepared:
    """A data set that can be trained on.

    Attributes:
        root: the data folder, absolute; file names are relative to it.
        format: 'coco', 'voc' or 'yolo'.
        parts: 'train', 'val' and perhaps 'test'.
        classes: names by label.
        remarks: what was decided, changed and left out, one line each.
        statistics: the table that is printed.
    """

    root: str
    format: str
    parts: dict[str, Part]
    classes: list[str]
    remarks: list[str]
    statistics: str = field(repr=False)

    @property
    def sides(self) -> list[tuple[float, float, int, int]]:
        """(width, height) of the objects to train on, and of their images, in pixels."""
        return sides(self.parts['train'])

    def describe(self) -> str:
        """Format, remarks and table."""
        return '\n'.join([f'{self.root}: {self.format.upper()} annotations', *self.remarks, self.statistics])


def prepare(root: str, format: str | None = None, classes: list[str] | None = None, given: dict[str, str] | None = None,
            share: float = 0.2, seed: int = 0, skip_bad_boxes: bool = False) -> Prepared:
    """Read, check and split a data set; nothing is written.

    Args:
        root: folder of images with COCO JSON, VOC XML or YOLO txt annotations.
        format: which of them counts; None: the one that is there.
        classes: names in order. For YOLO the names of its numbers; for the others the classes to keep, and their order.
        given: part -> annotation file (COCO) or folder, relative to ``root``; None: told by names.
        share, seed: of a validation part that is drawn where there is none.
        skip_bad_boxes: leave out boxes that are empty or outside their image.

    Raises:
        ConfigError, DataError: naming the file and what would do.
    """
    if classes is not None and (not all(name.strip() for name in classes) or len(set(classes)) != len(classes)):
        raise ConfigError(f'--classes: found {classes}; names are expected, no two alike')
    found = read_folder(root, format, classes, given)
    remarks = list(found.remarks)
    if classes and found.format != 'yolo':
        remarks += _only(found, classes)
    remarks += check(root, found, skip_bad_boxes)
    remarks += split(root, found, share, seed)
    order = {name: found.parts[name] for name in ('train', 'val', 'test') if name in found.parts}
    names = order['train'].classes
    return Prepared(osp.abspath(root), found.format, order, names, remarks, statistics(order, names))


def _only(found: Found, classes: list[str]) -> list[str]:
    """Keep the classes named, in their order."""
    known = {name for part in found.parts.values() for name in part.classes}
    if unknown := [name for name in classes if name not in known]:
        raise DataError(f'--classes: {unknown} are not among the classes of the annotations: {sorted(known)}')
    for part in found.parts.values():
        part.classes = [name for name in classes if name in part.classes] if found.format == 'voc' else list(classes)
        for picture in part.pictures:
            picture.things = [thing for thing in picture.things if thing.label in classes]
    rest = sorted(known - set(classes))
    return [f'left out: the classes {rest}, which --classes does not name'] if rest else []


def texts(prepared: Prepared) -> dict[str, str]:
    """File name -> content of what is written: a COCO file for each part, and the statistics."""
    files = {f'{name}.json': json.dumps(coco_of(part, prepared.classes)) for name, part in prepared.parts.items()}
    return {**files, 'statistics.txt': prepared.describe() + '\n'}


def write(prepared: Prepared, out: str, overwrite: bool = False) -> list[str]:
    """Write :func:`texts` into a folder, see :func:`write_all`. Returns the paths."""
    wanted = {osp.join(out, name): text for name, text in texts(prepared).items()}
    write_all(wanted, overwrite)
    return list(wanted)


def write_all(wanted: dict[str, str], overwrite: bool) -> None:
    """Write texts to files, path -> text; all of them or, where something is in the way, none. Equal files are left
    alone.

    Raises:
        DataError: a file is there with another content, and ``overwrite`` is not given.
    """
    others = []
    for path, text in wanted.items():
        there = None
        if osp.isfile(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                there = file.read()
        if there is not None and there != text and not overwrite:
            raise DataError(f'{path} is there with another content (edited, or made from other data or arguments); '
                            '--overwrite replaces it, another --out leaves it')
        if there != text:
            others.append(path)
    for path in others:
        write_whole(path, wanted[path])
