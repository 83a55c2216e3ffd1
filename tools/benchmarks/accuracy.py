#!/usr/bin/env python
"""Run an accuracy study: train what is not recorded yet, record every finished run, write the table.

``python tools/benchmarks/accuracy.py tools/benchmarks/studies/NAME.json``. Each run is ``tools/train.py`` in a process
of its own with one thread. Its figures go to ``work_dirs/results/`` at once; what stands there is not trained again.
"""
import argparse
import glob
import os
import os.path as osp
import signal
import sys

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
from kd_det.errors import CompareError, ConfigError, StudyError
from kd_det.study.breakdown import breakdown, write_page
from kd_det.study.definition import load_study
from kd_det.study.image_intervals import ground_truth, image_intervals
from kd_det.study.importing import import_run
from kd_det.study.planning import Settings, plan
from kd_det.study.running import Scheduler
from kd_det.study.table import study_table, write_readme

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', help='study file; a bare NAME means tools/benchmarks/studies/NAME.json')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='only these rows, and the teacher they need')
    parser.add_argument('--seeds', nargs='+', type=int, help='instead of those in the study file (not the teacher\'s)')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side (default 1)')
    parser.add_argument('--threads', type=int, default=1, help='threads of each run (default 1)')
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the configs')
    parser.add_argument('--work-dir', default='work_dirs/studies', help='logs and checkpoints (default %(default)s)')
    parser.add_argument('--results', default='work_dirs/results', help='records (default %(default)s)')
    parser.add_argument('--readme', help='page with the markers of the table (default: README.md and those in configs/)')
    parser.add_argument('--list', action='store_true', help='say what is recorded and what would run, and stop')
    parser.add_argument('--tables-only', action='store_true', help='write the table, train nothing')
    parser.add_argument('--redo', action='store_true', help='train again where the recorded config differs')
    parser.add_argument('--import', dest='import_dir', metavar='RUN_DIR',
                        help='record a finished run of tools/train.py as --row with --seed, if its config is the row\'s')
    parser.add_argument('--row', help='for --import')
    parser.add_argument('--seed', type=int, default=0, help='for --import (default 0)')
    parser.add_argument('--trainer', default='tools/train.py', help='the program that trains (default %(default)s)')
    parser.add_argument('--evaluator', default='tools/benchmarks/detections.py',
                        help='the program that evaluates a finished run and keeps its detections (default %(default)s)')
    args = parser.parse_args(argv)
    if args.import_dir and not args.row:
        parser.error('--import needs --row')
    if args.jobs < 1 or args.threads < 1:
        parser.error('--jobs and --threads are at least 1')
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    def from_root(path: str) -> str:
        return osp.join(ROOT, path)  # an absolute path stays what it is
    path = args.study if args.study.endswith('.json') else f'tools/benchmarks/studies/{args.study}.json'
    try:
        study = load_study(path if osp.isfile(path) else from_root(path))
        settings = Settings(root=ROOT, work_dir=from_root(args.work_dir), results=from_root(args.results),
                            trainer=from_root(args.trainer), evaluator=from_root(args.evaluator),
                            threads=args.threads, jobs=args.jobs, redo=args.redo,
                            data_root=args.data_root and osp.abspath(args.data_root))

        truth = ground_truth(study, ROOT, settings.data_root)

        def show(to_terminal: bool = False) -> None:
            images = image_intervals(study, settings.results, truth)
            table = study_table(study, settings.results, images)
            write_page(settings.results, study, table, details := breakdown(study, images))
            pages = [from_root(args.readme)] if args.readme else [
                from_root('README.md'), *sorted(glob.glob(from_root('configs/*/README.md')))]
            written = [page for page in pages if write_readme(page, study.name, table)]
            if to_terminal:
                print(f'\n{table}\n\n{details}'.rstrip())
                if not written:
                    print(f'\n(no page has markers <!-- study:{study.name} -->; the table is only printed)')

        if args.import_dir:
            import_run(study, args.row, args.seed, args.import_dir, settings)
        elif not args.tables_only:
            tasks = plan(study, settings, args.rows, args.seeds)
            for task in tasks:
                print(f'{task.name:<28} {task.describe()}')
            if args.list:
                return 0
            signal.signal(signal.SIGTERM, _interrupt)
            failed = Scheduler(study, settings, tasks, after_each=show).run()
            show(to_terminal=True)
            return 1 if failed else 0
        show(to_terminal=True)
    except (StudyError, ConfigError, CompareError) as error:
        print(f'accuracy.py: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; the same command continues', file=sys.stderr)
        return 130
    return 0


def _interrupt(number: int, frame) -> None:
    raise KeyboardInterrupt


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    sys.exit(main())
