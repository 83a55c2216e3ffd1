"""``kd-det data voc``: Pascal VOC annotations as COCO JSON."""
import argparse

from ..datasets.voc_to_coco import add_arguments as voc_arguments
from ..datasets.voc_to_coco import write_coco
from ..errors import DataError

SUMMARY = 'convert Pascal VOC annotations to COCO JSON'
EXAMPLES = """
  kd-det data voc data/VOCdevkit --sets 2007:trainval 2012:trainval \\
      --out data/VOCdevkit/annotations/voc0712_trainval.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    voc_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert; nothing is written unless all of it can be."""
    try:
        print(write_coco(args))
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error
    return 0
