"""``kd-det data prepare``: a folder of images with annotations as COCO JSON, checked."""
import argparse
import os.path as osp

from ..errors import ConfigError
from ..files import check_writable
from ..mydata.formats import FORMATS
from ..mydata.prepare import Prepared, prepare, write
from .values import seed

SUMMARY = 'check a folder of images with COCO, VOC or YOLO annotations and write COCO JSON'
EXAMPLES = """
  kd-det data prepare photos                            # look, and print the statistics
  kd-det data prepare photos --out photos_coco          # train.json, val.json, statistics.txt
  kd-det data prepare photos --train labels/a.json --val labels/b.json --out photos_coco
"""


def add_folder(parser: argparse.ArgumentParser) -> None:
    """How a data folder is read."""
    parser.add_argument('--format', choices=FORMATS, help='of the annotations (default: the one that is there)')
    parser.add_argument('--classes', nargs='+', metavar='NAME',
                        help='YOLO: the names of its numbers; others: the classes to keep, in this order')
    for part in ('train', 'val', 'test'):
        parser.add_argument(f'--{part}', metavar='PLACE',
                            help=f'annotation file (COCO), image set (VOC) or folder for {part} '
                                 '(default: told by names)')
    parser.add_argument('--val-share', type=float, default=0.2, metavar='SHARE',
                        help='of the images for validation, where there is no such part (default 0.2)')
    parser.add_argument('--split-seed', type=seed, default=0, help='another draw of that part (default 0)')
    parser.add_argument('--skip-bad-boxes', action='store_true', help='leave out boxes that are empty or outside')


def prepared_of(args: argparse.Namespace, folder: str) -> Prepared:
    """What the arguments of :func:`add_folder` mean."""
    given = {part: getattr(args, part) for part in ('train', 'val', 'test') if getattr(args, part)}
    return prepare(folder, args.format, args.classes, given, args.val_share, args.split_seed, args.skip_bad_boxes)


def check_out(out: str, data: str) -> None:
    """Raises :class:`ConfigError` for a place that cannot be written to, or where results would be taken for data."""
    check_writable('--out', out, folder=True)
    folder = osp.realpath(data)
    if osp.isdir(data) and osp.commonpath([folder, osp.realpath(out)]) == folder:
        raise ConfigError(f'--out {out}: it lies in the data folder {data}; name a folder outside of it, or what is '
                          'written would be taken for data the next time')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('data', metavar='DIR', help='folder of images with annotations')
    parser.add_argument('--out', help='folder for the files (default: only look)')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')
    add_folder(parser)


def run(args: argparse.Namespace) -> int:
    """Check, print, and write where ``--out`` says."""
    if args.out:
        check_out(args.out, args.data)
    prepared = prepared_of(args, args.data)
    print(prepared.describe())
    if args.out:
        print('\n'.join(write(prepared, args.out, args.overwrite)))
        print(f'to train on it: kd-det train CONFIG --data-root {args.out} --classes auto --cfg-options '
              f'data.images={prepared.root}')
    return 0
