"""What a reader of annotations finds."""
from dataclasses import dataclass, field

TRAIN, VAL, TEST, ALL = 'train', 'val', 'test', 'all'


@dataclass
class Thing:
    """One object.

    Attributes:
        label: name of its class.
        box: x, y of the upper left corner, width, height, in pixels of the picture.
        place: where it stands, for messages ('line 3', 'annotation 17').
        crowd: COCO's ``iscrowd``: neither asked for nor counted as false.
        outline: polygons, run-length code or None: COCO's ``segmentation``.
    """

    label: str
    box: list[float]
    place: str
    crowd: bool = False
    outline: list | dict | None = None


@dataclass
class Picture:
    """One image.

    Attributes:
        file: relative to the data folder, with forward slashes.
        source: the file that its objects are from.
        things: its objects.
        said: (width, height) as the annotations say; None: they do not.
        size: (width, height) as it is read for training; filled in by :mod:`.checking`.
    """

    file: str
    source: str
    things: list[Thing] = field(default_factory=list)
    said: tuple[float, float] | None = None
    size: tuple[int, int] = (0, 0)


@dataclass
class Part:
    """Pictures for one purpose.

    Attributes:
        source: the file or folder that they are from.
        pictures: the images.
        classes: names that the annotations declare, in their order; those of XML are the ones that occur.
    """

    source: str
    pictures: list[Picture] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        format: 'coco', 'voc' or 'yolo'.
        parts: 'train', 'val', 'test'; or 'all' where nothing tells them apart.
        remarks: what the reader decided, one line each.
    """

    format: str
    parts: dict[str, Part]
    remarks: list[str] = field(default_factory=list)
