"""``kd-det data digits``: make the demo set."""
import argparse
import signal
import sys

from ..datasets.make_digits import add_arguments as digits_arguments
from ..datasets.make_digits import make
from ..errors import DataError

SUMMARY = 'make the demo set: handwritten digits on photographs, COCO format'
EXAMPLES = """
  kd-det data digits
  kd-det data digits --out /data/digits --size 160x120 --train 1000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    digits_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make the set; a terminated run cleans up like an interrupted one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        make(args.out, args.train, args.dev, args.val, args.size, args.seed, args.force)
    except (ValueError, OSError, ImportError) as error:
        raise DataError(str(error)) from error
    return 0
