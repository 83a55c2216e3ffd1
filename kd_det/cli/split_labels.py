"""``kd-det data split-labels``: keep the labels of a part of a data set."""
import argparse

from ..datasets.split_labels import write_split
from .values import seed

SUMMARY = 'keep the labels of a part of a COCO set, and list its other images without theirs'
EXAMPLES = """
  kd-det data split-labels data/bccd/annotations/train.json --part 0.2 --out data/bccd-labels20
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('annotations', help='COCO annotation file')
    parser.add_argument('--part', type=float, default=0.2, help='of the images that keep their labels (default 0.2)')
    parser.add_argument('--seed', type=seed, default=0, help='which images (default 0)')
    parser.add_argument('--out', required=True, help='folder for labelled.json and unlabelled.json')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')


def run(args: argparse.Namespace) -> int:
    """Write both files."""
    print('\n'.join(write_split(args.annotations, args.part, args.seed, args.out, args.overwrite)))
    return 0
