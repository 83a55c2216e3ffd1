"""Converts Pascal VOC annotations (XML) of one or several image sets to one COCO JSON file.

    kd-det data voc VOCDEVKIT --sets 2007:trainval 2012:trainval --out X.json [--classes NAME ...]
        [--skip-other-classes] [--keep-difficult] [--skip-bad-boxes] [--force]

VOCDEVKIT holds VOC2007, VOC2012, each with Annotations/, ImageSets/Main/*.txt and JPEGImages/. ``file_name`` is
relative to VOCDEVKIT (VOC2007/JPEGImages/000005.jpg).

Boxes. VOC counts pixels from 1 and its corners are both inside the box; COCO measures from 0: x = xmin - 1, y = ymin -
1, w = xmax - xmin + 1, h = ymax - ymin + 1. (A box around the one pixel in the corner is 1 1 1 1 in VOC and [0, 0, 1,
1] in COCO.) Boxes are clipped to the image; the number that were is printed. A box that is empty or inverted, or empty
after clipping, is an error that names the file; --skip-bad-boxes leaves those out and lists them.

Difficult objects. VOC neither asks for them nor counts a detection of them as false. COCO's word for that is iscrowd=1:
pycocotools ignores detections matched to it, however many, and MMDetection keeps it out of the positives and negatives
in training. One difference remains: for a crowd, IoU is taken over the area of the detection alone, so a small
detection well inside a difficult object is ignored, which VOC would call false. --keep-difficult makes them ordinary
objects (iscrowd=0).
"""
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from ..files import write_whole

VOC_CLASSES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
               'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep',
               'sofa', 'train', 'tvmonitor')


def listing(problems, most=8):
    rest = len(problems) - most
    return ''.join(f'\n  {problem}' for problem in problems[:most]) + (
        f'\n  ... and {rest} more' if rest > 0 else '')


def names_of(voc, spec):
    """Folder (VOC2007) and image names of one set such as '2007:trainval'."""
    match = re.fullmatch(r'(\w+):([\w.-]+)', spec)
    if not match:
        raise ValueError(f'--sets {spec}: expected YEAR:SET, such as 2007:trainval')
    folder = voc / f'VOC{match[1]}'
    if not folder.is_dir():
        here = sorted(p.name for p in voc.glob('VOC*')) if voc.is_dir() else 'no such folder'
        raise FileNotFoundError(f'--sets {spec}: {folder} is not there; {voc} holds: {here}')
    path = folder / 'ImageSets' / 'Main' / f'{match[2]}.txt'
    if not path.is_file():
        here = sorted(p.stem for p in path.parent.glob('*.txt') if '_' not in p.stem)
        raise FileNotFoundError(f'--sets {spec}: {path} is not there; sets there: {here}')
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f'--sets {spec}: {path} names no image')
    if any(len(line) > 1 for line in lines):
        raise ValueError(f'--sets {spec}: {path} has more than one column: a list for one class, '
                         'which also names the images without it. Give a set such as trainval.')
    return folder, [line[0] for line in lines]


def number(element, path):
    """The finite number at ``path`` below ``element``; ValueError says which is missing."""
    text = element.findtext(path)
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise ValueError(f'<{path}> is missing' if text is None else f'<{path}> is {text!r}, not a number') from None
    if not math.isfinite(value):
        raise ValueError(f'<{path}> is {text!r}, not a finite number')
    return int(value) if value.is_integer() else value


def coco_box(corners, width, height):
    """VOC corners (xmin, ymin, xmax, ymax), 1-based and inclusive, to COCO [x, y, w, h].

    Returns:
        tuple: (box clipped to the image, or None if nothing is left; whether it was clipped)
    """
    xmin, ymin, xmax, ymax = corners
    x0, y0, x1, y1 = xmin - 1, ymin - 1, xmax, ymax
    cx0, cy0, cx1, cy1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if cx1 <= cx0 or cy1 <= cy0:
        return None, False
    return [cx0, cy0, cx1 - cx0, cy1 - cy0], (x0, y0, x1, y1) != (cx0, cy0, cx1, cy1)


def read_xml(path):
    """((width, height), objects) of one VOC file; objects are (name, corners, difficult)."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f'no valid XML ({error})') from None
    size = number(root, 'size/width'), number(root, 'size/height')
    if min(size) <= 0:
        raise ValueError(f'<size> is {size[0]}x{size[1]}')
    objects = []
    for item in root.findall('object'):  # parts (head, hand) are deeper and stay out
        corners = tuple(number(item, f'bndbox/{k}') for k in ('xmin', 'ymin', 'xmax', 'ymax'))
        name = (item.findtext('name') or '').strip()
        objects.append((name, corners, (item.findtext('difficult') or '0').strip() == '1'))
    return size, objects


def image_of(folder, name):
    for suffix in ('.jpg', '.jpeg', '.png', '.JPG'):
        path = folder / 'JPEGImages' / f'{name}{suffix}'
        if path.is_file():
            return path
    return None


def convert(voc, sets, classes=VOC_CLASSES, skip_other_classes=False, keep_difficult=False,
            skip_bad_boxes=False, say=print):
    """COCO dictionary of VOC image sets; conversion and difficult objects: see the module text.

    Args:
        voc (str | Path): folder that holds VOC2007, VOC2012 ...
        sets (list[str]): such as '2007:trainval'; image ids 1, 2, ... follow their order.
        classes (sequence[str]): category ids 1, 2, ... follow their order.
        skip_other_classes (bool): leave out objects of other classes instead of raising.
        keep_difficult (bool): difficult objects are ordinary instead of iscrowd=1.
        skip_bad_boxes (bool): leave out empty boxes instead of raising.
        say (callable): receives messages.

    Raises:
        FileNotFoundError: a folder, set file, XML or image is missing (all are listed).
        ValueError: anything wrong inside them (all are listed).
    """
    voc, ids = Path(voc), {name: k + 1 for k, name in enumerate(classes)}
    if not classes or len(ids) != len(classes):
        raise ValueError(f'--classes {list(classes)}: names must be given and differ')
    coco = {'info': {'description': f'Pascal VOC {" + ".join(sets)}'}, 'licenses': [],
            'images': [], 'annotations': [],
            'categories': [{'id': k, 'name': name} for name, k in ids.items()]}
    missing, broken, bad_boxes, others, clipped, seen = [], [], [], Counter(), 0, {}
    first_with = {}
    for spec in sets:
        folder, names = names_of(voc, spec)
        for name in names:
            path, image = folder / 'Annotations' / f'{name}.xml', image_of(folder, name)
            if path in seen:
                raise ValueError(f'{folder.name}/{name} is in {seen[path]} and again in {spec}: '
                                 'it would be counted twice. Give sets that do not overlap.')
            seen[path] = spec
            if not path.is_file() or image is None:
                missing.append(f'{path}' if not path.is_file() else
                               f'{folder / "JPEGImages" / name}.jpg')
                continue
            try:
                (width, height), objects = read_xml(path)
            except ValueError as error:
                broken.append(f'{path}: {error}')
                continue
            image_id = len(coco['images']) + 1
            coco['images'].append({'id': image_id, 'width': width, 'height': height,
                                   'file_name': image.relative_to(voc).as_posix()})
            for label, corners, difficult in objects:
                box, was_clipped = coco_box(corners, width, height)
                if label not in ids:
                    others[label] += 1
                    first_with.setdefault(label, path)
                elif box is None:
                    bad_boxes.append(f'{path}: {label} xmin, ymin, xmax, ymax = {corners} in an '
                                     f'image of {width}x{height}')
                else:
                    clipped += was_clipped
                    coco['annotations'].append({
                        'id': len(coco['annotations']) + 1, 'image_id': image_id,
                        'category_id': ids[label], 'bbox': box, 'area': box[2] * box[3],
                        'iscrowd': int(difficult and not keep_difficult),
                        'difficult': int(difficult)})
    if missing:
        raise FileNotFoundError(f'{len(missing)} files are missing:{listing(missing)}')
    if broken:
        raise ValueError(f'{len(broken)} annotation files cannot be read:{listing(broken)}')
    if others:
        found = [f'{label!r}: {count} objects, the first in {first_with[label]}'
                 for label, count in others.most_common()]
        if not skip_other_classes:
            raise ValueError(f'classes that are not among {list(classes)}:{listing(found)}\n'
                             'Add them to --classes, or leave them out: --skip-other-classes.')
        say(f'left out, other classes:{listing(found)}')
    if bad_boxes:
        text = f'{len(bad_boxes)} boxes are empty or outside their image:{listing(bad_boxes)}'
        if not skip_bad_boxes:
            raise ValueError(f'{text}\nMend them, or leave them out: --skip-bad-boxes.')
        say(f'left out, {text}')
    if clipped:
        say(f'{clipped} boxes reached beyond their image and were clipped')
    return coco


def add_arguments(parser):
    """The command line's flags."""
    parser.add_argument('voc', metavar='VOCDEVKIT', help='folder that holds VOC2007, VOC2012')
    parser.add_argument('--sets', nargs='+', required=True, metavar='YEAR:SET')
    parser.add_argument('--out', required=True, type=Path)
    parser.add_argument('--classes', nargs='+', default=VOC_CLASSES, help="default: VOC's twenty")
    parser.add_argument('--skip-other-classes', action='store_true')
    parser.add_argument('--keep-difficult', action='store_true', help='as ordinary objects')
    parser.add_argument('--skip-bad-boxes', action='store_true')
    parser.add_argument('--force', action='store_true', help='overwrite --out')


def write_coco(args):
    """Convert as the flags say and write the file whole; returns a line that says what is in it."""
    if args.out.exists() and not args.force:
        raise FileExistsError(f'{args.out} exists and was not touched; --force overwrites it')
    coco = convert(args.voc, args.sets, args.classes, args.skip_other_classes, args.keep_difficult,
                   args.skip_bad_boxes)
    write_whole(args.out, json.dumps(coco))
    crowd = sum(item['iscrowd'] for item in coco['annotations'])
    return (f'{args.out}: {len(coco["images"])} images, {len(coco["annotations"])} objects '
            f'({crowd} difficult, ignored), {len(coco["categories"])} classes')
