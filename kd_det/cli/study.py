"""``kd-det study``: run an accuracy study: train what is not recorded yet, record every finished run, write the table.
"""
import argparse
import glob
import os
import os.path as osp
import signal

from ..errors import ConfigError
from ..shipped import study_file
from ..study.breakdown import breakdown, write_page
from ..study.definition import load_study
from ..study.image_intervals import ground_truth, image_intervals
from ..study.importing import import_run
from ..study.planning import Settings, plan
from ..study.records import row_records
from ..study.running import Scheduler
from ..study.table import study_table, write_readme
from .values import seed

SUMMARY = 'train, record and tabulate the rows of a study file'
EXAMPLES = """
  kd-det study faster_rcnn_bccd --list
  kd-det study my_study.json --rows base all --seeds 0 1 2 --jobs 2

  Each run is kd-det train in a process of its own with one thread. Its figures go to --results at once; what stands
  there is not trained again. Exit status 1: a run failed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('study', help='study file, or the NAME of one that ships')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='only these rows, and the teacher they need')
    parser.add_argument('--seeds', nargs='+', type=int, help='instead of those in the study file (not the teacher\'s)')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side (default 1)')
    parser.add_argument('--threads', type=int, default=1, help='threads of each run (default 1)')
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the configs')
    parser.add_argument('--work-dir', default='work_dirs/studies', help='logs and checkpoints (default %(default)s)')
    parser.add_argument('--results', default='work_dirs/results', help='records (default %(default)s)')
    parser.add_argument('--readme',
                        help='page with the markers of the table (default: README.md and those in configs/)')
    parser.add_argument('--list', action='store_true', help='say what is recorded and what would run, and stop')
    parser.add_argument('--tables-only', action='store_true', help='write the table, train nothing')
    parser.add_argument('--redo', action='store_true', help='train again where the recorded config differs')
    parser.add_argument('--import', dest='import_dir', metavar='RUN_DIR',
                        help='record a finished run of kd-det train as --row with --seed, if its config is the row\'s')
    parser.add_argument('--row', help='for --import')
    parser.add_argument('--seed', type=seed, default=0, help='for --import (default 0)')
    parser.add_argument('--trainer', help='the program that trains (default kd-det train)')
    parser.add_argument('--evaluator', help='the program that evaluates a finished run and keeps its detections '
                                            '(default kd-det detections)')
    parser.add_argument('--root', default='.', help='relative paths are below this folder (default: where one stands)')


def run(args: argparse.Namespace) -> int:
    """List, import, train or tabulate, as asked."""
    if args.import_dir and not args.row:
        raise ConfigError('--import needs --row')
    if args.jobs < 1 or args.threads < 1:
        raise ConfigError('--jobs and --threads are at least 1')
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    root = osp.abspath(args.root)

    def from_root(path: str) -> str:
        return osp.join(root, path)  # an absolute path stays what it is

    def program(path: str | None, command: str) -> tuple[str, ...]:
        return (from_root(path),) if path else ('-m', 'kd_det', command)

    study = load_study(study_file(args.study))
    settings = Settings(root=root, work_dir=from_root(args.work_dir), results=from_root(args.results),
                        trainer=program(args.trainer, 'train'), evaluator=program(args.evaluator, 'detections'),
                        threads=args.threads, jobs=args.jobs, redo=args.redo,
                        data_root=args.data_root and osp.abspath(args.data_root))
    truth = ground_truth(study, root, settings.data_root)

    def show(to_terminal: bool = False) -> None:
        images = image_intervals(study, settings.results, truth)
        table = study_table(study, settings.results, images)
        records = {row.name: row_records(settings.results, row) for row in study.rows}
        write_page(settings.results, study, table, details := breakdown(study, images, records))
        pages = [from_root(args.readme)] if args.readme else [
            from_root('README.md'), *sorted(glob.glob(from_root('configs/*/README.md')))]
        written = [page for page in pages if write_readme(page, study.name, table)]
        if to_terminal:
            print(f'\n{table}\n\n{details}'.rstrip())
            if not written:
                print(f'\n(no page has markers <!-- study:{study.name} -->; the table is only printed)')

    failed = False
    if args.import_dir:
        import_run(study, args.row, args.seed, args.import_dir, settings)
    elif not args.tables_only:
        tasks = plan(study, settings, args.rows, args.seeds)
        for task in tasks:
            print(f'{task.name:<28} {task.describe()}')
        if args.list:
            return 0
        signal.signal(signal.SIGTERM, _interrupt)
        failed = bool(Scheduler(study, settings, tasks, after_each=show).run())
    show(to_terminal=True)
    return int(failed)


def _interrupt(number: int, frame) -> None:
    raise KeyboardInterrupt
