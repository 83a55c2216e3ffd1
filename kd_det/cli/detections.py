"""``kd-det detections``: keep the detections of a finished run."""
import argparse

from ..study.evaluating import evaluate_run

SUMMARY = 'evaluate a finished run and keep its detections'
EXAMPLES = """
  kd-det detections work_dirs/run work_dirs/run/detections

  The run's last checkpoint is evaluated on the validation set; FOLDER gets the detections (COCO results, gzipped) and
  evaluation.json with figures that are not rounded. Of a CoLAD run both networks'.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('run', help='work directory of kd-det train')
    parser.add_argument('folder', help='where the files go')
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the config')


def run(args: argparse.Namespace) -> int:
    """Evaluate and write."""
    evaluate_run(args.run, args.folder, args.data_root)
    return 0
