"""``kd-det compare``: accuracy and cost of detectors in one table."""
import argparse
import contextlib
import json
import sys

from ..compare import comparison, plots, report, table
from ..compare.frequency import LIMITS, frequency_columns, groups_of, read_counts
from ..errors import CompareError
from ..files import check_writable, write_whole

SUMMARY = 'accuracy and cost of finished runs in one table'
EXAMPLES = """
  kd-det compare work_dirs/plain work_dirs/distilled work_dirs/teacher --markdown --plot ap_latency.png
  kd-det compare CONFIG.py:checkpoint.pth work_dirs/distilled --eval --per-class
  kd-det compare work_dirs/plain work_dirs/distilled work_dirs/teacher --html report.html

  RUN is a work directory of kd-det train, or CONFIG:CHECKPOINT. Of a distillation run the deployed student is
  measured. The first RUN is what the others are compared with.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('runs', nargs='+', metavar='RUN',
                        help='work directory or CONFIG:CHECKPOINT')
    parser.add_argument('--names', nargs='+', metavar='NAME', help='one for every RUN')
    parser.add_argument('--no-fold', action='store_true',
                        help='show seeds of one config as rows of their own, not as mean ± sd')
    parser.add_argument('--data-root',
                        help='the data set is here instead of the configs\' data_root')

    accuracy = parser.add_argument_group('accuracy')
    accuracy.add_argument('--split', choices=['val', 'test'],
                          help='which evaluation counts (default: the last one; --eval: test)')
    accuracy.add_argument('--eval', nargs='?', const='missing', choices=['missing', 'all'],
                          help='run the evaluation where no AP is recorded, or for all')
    accuracy.add_argument('--per-class', action='store_true', help='AP of every class too')
    accuracy.add_argument('--frequency', metavar='TRAIN.json',
                          help='AP of rare, common and frequent classes too, by their images in this annotation file')
    accuracy.add_argument('--frequency-limits', nargs=2, type=int, default=LIMITS, metavar=('RARE', 'COMMON'),
                          help='up to how many training images a class is rare, and common (default 10 100, as LVIS)')

    cost = parser.add_argument_group('cost')
    cost.add_argument('--no-latency', action='store_true', help='measure no times')
    cost.add_argument('--repeat', type=int, default=50, metavar='N',
                      help='timed rounds, one image a round and detector (default 50)')
    cost.add_argument('--warmup', type=int, default=5, metavar='N',
                      help='rounds before (default 5)')
    cost.add_argument('--images', type=int, default=10, metavar='N',
                      help='different test images to measure on (default 10)')
    cost.add_argument('--device', help='cpu, cuda, cuda:1 ... (default: cuda if there is one)')

    output = parser.add_argument_group('output')
    output.add_argument('--markdown', action='store_true', help='print Markdown')
    output.add_argument('--json', metavar='FILE',
                        help='write everything as JSON; - prints it instead of the table')
    output.add_argument('--plot', metavar='FILE.png',
                        help='picture: AP against latency (without times, GFLOPs)')
    output.add_argument('--curves', metavar='FILE.png',
                        help='picture: training loss and validation AP')
    output.add_argument('--html', metavar='FILE.html',
                        help='one page for a browser: tables, charts, kinds of mistakes, detections side by side')
    output.add_argument('--gallery', type=int, default=24, metavar='N',
                        help='images that the page shows (default 24; 0: none, and no kinds of mistakes)')
    output.add_argument('--gallery-from', type=int, default=200, metavar='N',
                        help='test images that every detector looks at for that (default 200)')
    output.add_argument('--width', type=int, default=120,
                        help='columns of the terminal (default 120)')


def check(args: argparse.Namespace) -> None:
    """Raises :class:`CompareError` on flags that cannot be meant."""
    for flag in ('repeat', 'images'):
        if getattr(args, flag) < 1:
            raise CompareError(f'--{flag} {getattr(args, flag)}: at least 1')
    for flag, least in (('gallery', 0), ('gallery_from', 1)):
        if getattr(args, flag) < least:
            raise CompareError(f'--{flag.replace("_", "-")} {getattr(args, flag)}: at least {least}')
    for flag in ('plot', 'curves'):
        if getattr(args, flag) and not getattr(args, flag).endswith('.png'):
            raise CompareError(f'--{flag} {getattr(args, flag)}: end the name in .png')
    if args.width < 20:
        raise CompareError(f'--width {args.width}: at least 20')
    for flag in ('json', 'plot', 'curves', 'html'):
        if getattr(args, flag) not in (None, '-'):
            check_writable(f'--{flag}', getattr(args, flag))
    if args.names and len(args.names) != len(args.runs):
        raise CompareError(f'--names: {len(args.names)} names for {len(args.runs)} runs')


def progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def render(result: comparison.Comparison, args: argparse.Namespace) -> str:
    columns = table.main_columns(result.rows, timed=not args.no_latency)
    tables = [('detector', [row.name for row in result.rows], columns)]
    if args.per_class:
        tables.append(('class AP', *table.class_columns(result.rows)))
    if args.frequency:
        groups = groups_of(read_counts(args.frequency), args.frequency_limits)
        tables.append(('mean AP of classes', *frequency_columns(result.rows, groups)))
    if args.markdown:
        return '\n\n'.join([table.markdown(*part) for part in tables]
                           + ['\n'.join(f'- {note}' for note in result.notes)])
    return '\n\n'.join([table.text(*part, width=args.width) for part in tables]
                       + [table.notes(result.notes, args.width)])


def show(text: str) -> None:
    try:
        print(text)
    except UnicodeEncodeError:  # a terminal without these two signs
        print(text.replace('±', '+-').replace('Δ', 'd'))


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    check(args)
    if args.frequency:
        groups_of(read_counts(args.frequency), args.frequency_limits)  # before minutes of measuring
    # what the libraries print on the way is no part of the result
    with contextlib.redirect_stdout(sys.stderr):
        result = comparison.compare(
            args.runs, names=args.names, fold_seeds=not args.no_fold, data_root=args.data_root,
            split=args.split, evaluate=args.eval, timed=not args.no_latency,
            repeat=args.repeat, warmup=args.warmup, number=args.images, device=args.device,
            gallery=args.gallery if args.html else 0, looked_at=args.gallery_from, progress=progress)
        if (args.per_class or args.frequency) and not table.class_names(result.rows):
            raise CompareError(f'{"--per-class" if args.per_class else "--frequency"}: no AP by class is recorded; '
                               'evaluate with classwise=True in the evaluator: --eval all')
        if args.plot:
            plots.plot_cost(result.rows, args.plot)
        if args.curves:
            plots.plot_curves(result.rows, args.curves)
        if args.html:
            write_whole(args.html, report.page(result, timed=not args.no_latency))
    if args.json != '-':
        show(render(result, args))
    if args.json:
        text = json.dumps(table.as_json(result.rows, result.notes, result.environment),
                          indent=2, allow_nan=False)
        if args.json == '-':
            print(text)
        else:
            write_whole(args.json, text + '\n')
    return 0
