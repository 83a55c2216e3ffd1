"""``kd-det visualize``: pictures of detections, of assigned anchors and of hint features."""
import argparse
import sys

from ..compare.comparison import device_named
from ..errors import CompareError
from ..files import check_writable
from ..visualize.features import REDUCTIONS
from ..visualize.pictures import KINDS, Settings, draw_all

SUMMARY = 'pictures: detections side by side, types of errors, positive anchors, hint features'
EXAMPLES = """
  kd-det visualize work_dirs/plain work_dirs/distilled --out pictures
  kd-det visualize CONFIG.py:checkpoint.pth work_dirs/distilled --out pictures --show detections errors --score 0.5
  kd-det visualize work_dirs/distilled --out pictures --show anchors hints --files photo_1.jpg photo_2.jpg

  RUN is a work directory of kd-det train, or CONFIG:CHECKPOINT. Ground truth comes first, then the teachers of the runs
  that distil, then the runs. Anchors: which priors teacher and student make positive for each object (PAA, TOOD,
  RTMDet, YOLOX, DDOD). Hints: the student's maps before and after the adapter, and the teacher's.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('runs', nargs='+', metavar='RUN', help='work directory or CONFIG:CHECKPOINT')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the pictures (PNG)')
    parser.add_argument('--names', nargs='+', metavar='NAME', help='one for every RUN')
    parser.add_argument('--show', nargs='+', choices=KINDS, default=list(KINDS), metavar='KIND',
                        help=f'of {", ".join(KINDS)} (default: all that there are)')
    parser.add_argument('--number', type=int, default=8, metavar='N',
                        help='images, evenly spaced over the test set (default 8)')
    parser.add_argument('--files', nargs='+', default=[], metavar='FILE',
                        help='images of the test set instead, by file name')
    parser.add_argument('--score', type=float, default=0.3, help='detections below it are not drawn (default 0.3)')
    parser.add_argument('--side', type=int, default=400, help='pixels of a panel\'s longer side (default 400)')
    parser.add_argument('--reduce', choices=REDUCTIONS, default='norm', help='features over channels (default norm)')
    parser.add_argument('--no-teacher', action='store_true', help='leave teachers out, and with them anchors and hints')
    parser.add_argument('--data-root', help='the data set is here instead of the configs\' data_root')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ... (default: cuda if there is one)')
    parser.add_argument('--overwrite', action='store_true', help='replace pictures that are there')


def run(args: argparse.Namespace) -> int:
    """Draw and list the files."""
    if args.number < 1:
        raise CompareError(f'--number {args.number}: at least 1')
    if args.side < 32:
        raise CompareError(f'--side {args.side}: at least 32')
    if not 0 <= args.score <= 1:
        raise CompareError(f'--score {args.score}: from 0 to 1')
    check_writable('--out', args.out, folder=True)
    settings = Settings(args.show, args.number, args.files, args.score, args.side, args.reduce, not args.no_teacher,
                        args.overwrite)
    files, remarks = draw_all(args.runs, args.out, settings, args.names, args.data_root, device_named(args.device),
                              lambda message: print(message, file=sys.stderr, flush=True))
    print('\n'.join([*files, *remarks]))
    return 0
