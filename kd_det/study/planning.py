"""Which runs a study needs, and the command line of each."""
import argparse
import os
import os.path as osp
import shlex
import sys
from dataclasses import dataclass, field

from mmengine.config import Config, DictAction

from ..errors import StudyError
from .configs import resolve
from .definition import Study, StudyRow
from .finished import Finished, read_finished
from .identity import config_hash
from .records import read_record, record_path
from .teachers import ONE, taught_by


@dataclass
class Settings:
    """Where things lie and how runs are started; paths are absolute or below ``root``.

    ``trainer`` and ``evaluator`` are what Python is given to run: ``('-m', 'kd_det', 'train')``, or one script.
    """
    root: str
    work_dir: str
    results: str
    trainer: tuple[str, ...]
    evaluator: tuple[str, ...]
    threads: int = 1
    jobs: int = 1
    redo: bool = False
    data_root: str | None = None
    poll_seconds: float = 0.5
    report_seconds: float = 60.0

    def run_dir(self, row: StudyRow, seed: int) -> str:
        return osp.join(self.work_dir, row.home, f'seed{seed}')

    def environment(self) -> dict[str, str]:
        """Of the programs that are started: the threads of each, and the package of this checkout."""
        return dict(os.environ, OMP_NUM_THREADS=str(self.threads), MKL_NUM_THREADS=str(self.threads),
                    PYTHONPATH=os.pathsep.join(filter(None, [self.root, os.environ.get('PYTHONPATH')])))

    def evaluate_command(self, run_dir: str, folder: str) -> list[str]:
        """The command line that evaluates a finished run and leaves its detections in ``folder``."""
        return [sys.executable, *self.evaluator, run_dir, folder,
                *(['--data-root', self.data_root] if self.data_root else [])]


@dataclass
class Task:
    """One (row, seed).

    Attributes:
        cfg (Config): resolved, with the configured place of the teacher's checkpoint.
        options (dict): the ``--cfg-options`` of it.
        sha (str): hash of the config.
        state (str): ``'recorded'``, ``'differs'`` (recorded with another config), ``'missing'``, or, of a teacher that
            is recorded but whose weights are gone, ``'retrain'``.
        teachers (dict[str, Task]): what must be trained before, by its place in the config
            (:func:`.teachers.taught_by`).
    """
    row: StudyRow
    seed: int
    cfg: Config
    options: dict
    sha: str
    state: str
    teachers: 'dict[str, Task]' = field(default_factory=dict)
    notes: list = field(default_factory=list)

    @property
    def name(self) -> str:
        return f'{self.row.name} seed {self.seed}'

    def describe(self) -> str:
        text = {'recorded': 'recorded', 'missing': 'to be trained',
                'differs': 'recorded with ANOTHER config (--redo trains it again)',
                'retrain': 'recorded, but its weights are gone: trained again for its students'}[self.state]
        return '; '.join([text, *self.notes])


def plan(study: Study, settings: Settings, rows: list[str] | None = None, seeds: list[int] | None = None) -> list[Task]:
    """The runs asked for, seed by seed, so that pairs come early; teachers first.

    Raises:
        StudyError: no such row; a row distils but the study names no teacher, or another one than the row's config.
    """
    chosen = [row for row in ([study.row(name) for name in rows] if rows else study.rows) if row.network == 'first']
    teachers = study.teaching()
    pairs = [(row, seed) for row in chosen for seed in (seeds if seeds and row.name not in teachers else row.seeds)]
    pairs.sort(key=lambda pair: (pair[0].name not in teachers, pair[1]))
    tasks: dict[tuple, Task] = {}
    for row, seed in pairs:
        _add_task(tasks, study, settings, row, seed)
    needed = {id(teacher) for task in tasks.values() if task.state != 'recorded' for teacher in task.teachers.values()}
    for task in tasks.values():
        if id(task) in needed and task.state == 'recorded' and own_finished(task, settings) is None:
            task.state = 'retrain'
    return sorted(tasks.values(), key=lambda task: task.row.name not in teachers)


def _add_task(tasks: dict, study: Study, settings: Settings, row: StudyRow, seed: int) -> Task:
    if (row.name, seed) in tasks:
        return tasks[row.name, seed]
    # a seed changes nothing in the config, and reading one takes a second
    known = next((task for (name, _), task in tasks.items() if name == row.name), None)
    cfg, options = (known.cfg, known.options) if known else resolve(study, row, settings.root)
    sha = known.sha if known else config_hash(cfg)
    record = read_record(record_path(settings.results, row, seed))
    state = 'missing' if record is None else 'recorded' if record['config_sha256'] == sha else 'differs'
    task = Task(row, seed, cfg, options, sha, state)
    for place, named in taught_by(study, row, cfg).items():
        teacher = task.teachers[place] = _add_task(tasks, study, settings, study.row(named[0]), named[1])
        current = read_record(record_path(settings.results, teacher.row, teacher.seed))
        then = record and (record.get('teacher', {}) if place == ONE else record.get('sources', {}).get(place, {}))
        if record and current and then.get('weights_sha256') != current['weights_sha256']:
            task.notes.append(f'its {"teacher" if place == ONE else place} was not the one recorded now')
    tasks[row.name, seed] = task
    return task


def own_finished(task: Task, settings: Settings) -> Finished | None:
    """The finished run in the task's work directory, if it is of the task's config."""
    finished = read_finished(settings.run_dir(task.row, task.seed))
    return finished if finished is not None and config_hash(finished.cfg) == task.sha else None


def option_arguments(options: dict) -> list[str]:
    """``KEY=VALUE`` words that ``--cfg-options`` reads back as ``options``.

    Raises:
        StudyError: a value that the command line cannot carry, such as a dict.
    """
    def word(value) -> str:
        if isinstance(value, (list, tuple)):
            marks = '[]' if isinstance(value, list) else '()'
            return marks[0] + ','.join(map(word, value)) + marks[1]
        return str(value)
    words = [f'{key}={word(value)}' for key, value in options.items()]
    if words:
        parser = argparse.ArgumentParser()
        parser.add_argument('--options', nargs='+', action=DictAction)
        back = parser.parse_args(['--options', *words]).options
        for key, value in options.items():
            if isinstance(value, dict) or back.get(key) != value:
                raise StudyError(f'option {key}={value!r} cannot be given on a command line; write a config file '
                                 'that derives from the row\'s')
    return words


def plan_one(study: Study, settings: Settings, row: StudyRow, seed: int) -> Task:
    """One run, with its teacher, whatever is recorded."""
    return _add_task({}, study, settings, row, seed)


def train_arguments(task: Task, settings: Settings, for_record: bool = False) -> list[str] | str:
    """Arguments of ``kd-det train``, or the whole command with the default places, for the record.

    Raises:
        StudyError: the teacher has no finished run; an option that a command line cannot carry.
    """
    place, options = settings, dict(task.options)
    if for_record:
        place = Settings(root='', work_dir='work_dirs/studies', results='', trainer=(), evaluator=())
    run_dir = relative(place.run_dir(task.row, task.seed), place.root)
    for where, teacher in task.teachers.items():
        finished = own_finished(teacher, settings)
        if finished is None:
            raise StudyError(f'no finished run of {teacher.name} in {settings.run_dir(teacher.row, teacher.seed)}')
        folder = relative(place.run_dir(teacher.row, teacher.seed), place.root)
        options[f'{where}.checkpoint'] = osp.join(folder, osp.basename(finished.checkpoint))
    arguments = [task.row.config, '--seed', str(task.seed), '--work-dir', run_dir]
    if settings.data_root and not for_record:
        arguments += ['--data-root', settings.data_root]
    if options:
        arguments += ['--cfg-options', *option_arguments(options)]
    return 'kd-det train ' + shlex.join(arguments) if for_record else arguments


def relative(path: str, root: str) -> str:
    """Below ``root`` without it, so that the dumped config is free of machine paths; elsewhere absolute."""
    if not root:
        return path
    short = osp.relpath(path, root)
    return osp.abspath(path) if short.startswith(os.pardir) else short
