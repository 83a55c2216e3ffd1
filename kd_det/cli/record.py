"""``kd-det record``: what a teacher says of the training set, written down before training."""
import argparse
import sys

from mmengine.device import get_device

from ..arguments import positive_int
from ..build import checked
from ..recording.recorder import Shares, record, with_records
from ..sources.shards import in_words
from .changes import add_changes, changed_config

SUMMARY = 'record what the teacher says of the training set, once for many students and machines'
EXAMPLES = """
  kd-det record DISTIL.py --out records/r101                  # each image, and mirrored where the pipeline mirrors
  kd-det record DISTIL.py --out records/r101 --shard 2/8      # the second of eight machines, or of eight GPUs
  kd-det record DISTIL.py --out records/r101 --epochs 12      # the very batches that this config's run will see
  kd-det train DISTIL.py --cfg-options model.teacher.record=records/r101
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_changes(parser)
    parser.add_argument('--out', metavar='DIR', help='folder of the record (default: teacher.record of the config); '
                        'what is there is kept and completed')
    parser.add_argument('--epochs', type=int, metavar='N', help='record the batches of the first N epochs of this '
                        'config\'s run and seed, instead of every image in every way of mirroring')
    parser.add_argument('--max-disk', metavar='SIZE', help='refuse to begin where more is needed, e.g. 500MB, 2TB '
                        '(default: the config\'s, or 20GB)')
    parser.add_argument('--shard', metavar='I/N', help='only the I-th of N parts; all may write into one folder')
    parser.add_argument('--device', help='where the teacher runs (default: a GPU if there is one)')


def run(args: argparse.Namespace) -> int:
    """Record; 0 when every view is there."""
    if args.epochs is not None:
        checked('--epochs', positive_int, args.epochs)
    cfg = changed_config(args)
    folders = with_records(cfg, args.out, args.max_disk)
    sources = record(cfg, args.epochs, Shares.of(args.shard), args.device or get_device(), progress=_progress)
    for source in sources.values():
        print(f'{source.record.folder}: {len(source.shards)} views, {in_words(source.shards.bytes)}; '
              f'{source.counts["read"]} were there, {source.counts["asked"]} are new')
    print('in the config: ' + ', '.join(f'model.{key}.record={folder!r}' for key, folder in folders.items()))
    return 0


def _progress(done: int, total: int) -> None:
    print(f'{done}/{total} views', end='\n' if done >= total else '\r', file=sys.stderr, flush=True)
