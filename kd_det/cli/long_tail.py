"""``kd-det data long-tail``: a part of a data set in which some classes are rare."""
import argparse
import os.path as osp

from ..datasets.long_tail import write_long_tail
from ..errors import DataError
from .values import seed

SUMMARY = 'a part of a COCO set in which some classes are rare'
EXAMPLES = """
  kd-det data long-tail data/vehicles/annotations/train.json --ratio 20 --out data/vehicles-tail20/labelled.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('annotations', help='COCO annotation file')
    parser.add_argument('--ratio', type=float, default=20.0,
                        help='images of the most frequent class over those of the rarest (default 20)')
    parser.add_argument('--seed', type=seed, default=0, help='which images are kept (default 0)')
    parser.add_argument('--order', nargs='+', metavar='CLASS', help='the most frequent first (default: as in the file)')
    parser.add_argument('--out', required=True, help='annotation file to write')
    parser.add_argument('--overwrite', action='store_true', help='replace it if it is there')


def run(args: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    if osp.exists(args.out) and not args.overwrite:
        raise DataError(f'--out {args.out!r} is there already; --overwrite replaces it')
    print(write_long_tail(args.annotations, args.ratio, args.seed, args.out, args.order))
    return 0
