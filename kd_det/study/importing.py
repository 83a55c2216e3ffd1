"""Take a finished run of ``kd-det train`` into a study, if it is what the study would have trained."""
import glob
import os
import os.path as osp
import shutil
import subprocess
import tempfile

from ..errors import StudyError
from .definition import Study
from .evaluating import Evaluated, keep_detections, read_evaluation
from .finished import read_finished, run_config
from .identity import config_hash, differing_keys
from .planning import Settings, Task, plan_one, train_arguments
from .recording import make_record, with_detections, write_record
from .records import read_record, record_path
from .teachers import teacher_records


def import_run(study: Study, row_name: str, seed: int, run_dir: str, settings: Settings) -> Task:
    """Record the run in ``run_dir`` and copy its last checkpoint and its logs into the study's work directory.

    Also restores a recorded run whose weights are gone, if ``run_dir`` has the same weights.

    Raises:
        StudyError: no finished run; another config or seed than the row's (the differing keys are listed); a
            distilled run whose teacher is gone; another run is recorded already and ``settings.redo`` is not set.
    """
    task = plan_one(study, settings, study.row(row_name), seed)
    if run_config(run_dir) is None:
        raise StudyError(f'{run_dir!r} holds no run of kd-det train')
    finished = read_finished(run_dir)
    if finished is None:
        raise StudyError(f'{run_dir!r}: the last epoch has no validation yet; nothing is imported')
    if config_hash(finished.cfg) != task.sha:
        raise StudyError(f'{run_dir!r} was trained with another config than row {row_name!r}; they differ in '
                         + ', '.join(differing_keys(finished.cfg, task.cfg)[:12]))
    if (found := (finished.cfg.get('randomness') or {}).get('seed')) != seed:
        raise StudyError(f'{run_dir!r} was trained with seed {found}, not {seed}')
    try:
        teachers = teacher_records(task.teachers, finished, settings.root)
    except StudyError as error:
        raise StudyError(f'{run_dir!r}: {error}') from error
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(settings.evaluate_command(run_dir, folder), cwd=settings.root, env=settings.environment(),
                          stdout=subprocess.DEVNULL).returncode:
            raise StudyError(f'{run_dir!r}: its checkpoint could not be evaluated; nothing is imported')
        evaluated = read_evaluation(folder)
        record = make_record(study, task.row, seed, finished, evaluated, settings.root, threads=None, jobs=None,
                             command=train_arguments(task, settings, for_record=True), teachers=teachers)
        record['imported'] = True
        return _take(task, record, evaluated, run_dir, finished.checkpoint, settings)


def _take(task: Task, record: dict, evaluated: dict[str, Evaluated], run_dir: str, checkpoint: str,
          settings: Settings) -> Task:
    row, seed = task.row, task.seed
    old = read_record(record_path(settings.results, row, seed))
    same = old is not None and old['weights_sha256'] == record['weights_sha256']
    if old is not None and not same and not settings.redo:
        raise StudyError(f'{task.name} is recorded already, with other weights (AP {old["accuracy"]["AP"]}); --redo '
                         'replaces it')
    _copy(run_dir, checkpoint, settings.run_dir(row, seed))
    if not same or 'detections' not in old:
        keep_detections(evaluated, settings.results, row, seed)
        write_record(settings.results, row, seed, with_detections(old, record) if same else record)
    print(f'{task.name}: AP {record["accuracy"]["AP"]}, {"restored" if same else "imported"}')
    return task


def _copy(source: str, checkpoint: str, target: str) -> None:
    """Config, logs and the last checkpoint; ``target`` is whole or not there."""
    if osp.abspath(source) == osp.abspath(target):
        return
    part = f'{target}.part'
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    for path in sorted(glob.glob(osp.join(glob.escape(source), '*'))):
        if osp.isdir(path):
            shutil.copytree(path, osp.join(part, osp.basename(path)))
        elif path.endswith('.py'):
            shutil.copy(path, part)
    shutil.copy(checkpoint, part)
    with open(osp.join(part, 'last_checkpoint'), 'w', encoding='utf-8') as file:
        file.write(osp.join(target, osp.basename(checkpoint)))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
