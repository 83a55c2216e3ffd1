"""The record of one finished run: figures, and everything that says how they came about; no path of a machine."""
import glob
import hashlib
import importlib.metadata
import json
import os
import os.path as osp
import platform
import re

from mmengine.config import Config

from ..files import write_whole
from ..version import __version__
from .configs import ann_files
from .definition import Study, StudyRow
from .evaluating import Evaluated, agree
from .finished import Finished
from .identity import config_hash, weights_hash
from .records import record_path
from .teachers import ONE


def make_record(study: Study, row: StudyRow, seed: int, finished: Finished, evaluated: dict[str, Evaluated], root: str,
                threads: int | None, jobs: int | None, command: str, teachers: dict) -> dict:
    """The record as it is written: the figures are those of the evaluated checkpoint, not rounded.

    Args:
        evaluated (dict[str, Evaluated]): by network.
        root (str): directory that relative paths of the config start from.
        threads (int | None): of the run; None where nobody knows.
        jobs (int | None): runs side by side.
        command (str): what trains it again.
        teachers (dict): of :func:`.teachers.teacher_records`; kept as ``teacher`` and, by place, as ``sources``.

    Raises:
        StudyError: the evaluation and the run's own last validation contradict each other.
    """
    first, cfg = evaluated['first'], finished.cfg
    work_dir = osp.dirname(finished.checkpoint)
    record = dict(
        study=row.home.split('/')[0], row=row.home.split('/')[1], seed=seed, split=study.split, config=row.config,
        accuracy=first.accuracy.figures, per_class=first.accuracy.per_class,
        detections=dict(sha256=first.sha), epoch=cfg.train_cfg.max_epochs,
        wall_seconds=round(finished.seconds), schedule=schedule(cfg), annotations=annotations(cfg, root),
        hardware=dict(device=device_of(work_dir), cores=os.cpu_count(), threads=threads, jobs=jobs),
        versions=versions(work_dir), config_sha256=config_hash(cfg),
        weights_sha256=weights_hash(finished.checkpoint))
    agree(f'{row.name} seed {seed}', finished.accuracy, first.accuracy)
    if finished.peer is not None:
        second = evaluated['second']
        agree(f'{row.name} seed {seed}, second network', finished.peer, second.accuracy)
        record['peer'] = dict(accuracy=second.accuracy.figures, per_class=second.accuracy.per_class,
                              detections=dict(sha256=second.sha))
    if finished.first_teaches is not None:
        record['first_teaches'] = round(finished.first_teaches, 4)
    if ONE in teachers:
        record['teacher'] = teachers[ONE]
    if several := {place: one for place, one in teachers.items() if place != ONE}:
        record['sources'] = several
    return dict(record, command=command)


def with_detections(old: dict, new: dict) -> dict:
    """``old`` with what depends on the evaluation alone taken from ``new``, a record of the same weights."""
    keys = ('accuracy', 'per_class', 'detections')
    record = {**old, **{key: new[key] for key in keys}}
    if 'peer' in new:
        record['peer'] = new['peer']
    return record


def write_record(results: str, row: StudyRow, seed: int, record: dict) -> None:
    write_whole(record_path(results, row, seed), json.dumps(record, indent=1) + '\n')


def schedule(cfg: Config) -> dict:
    """Length and step size of the training."""
    optimizer = cfg.optim_wrapper.optimizer
    return dict(epochs=cfg.train_cfg.max_epochs, batch_size=cfg.train_dataloader.batch_size,
                optimizer=str(optimizer.type), lr=optimizer.lr)


def annotations(cfg: Config, root: str) -> dict[str, str]:
    """SHA-256 of the annotation files that were trained and evaluated on, by file name."""
    evaluated = next(value for _, value in ann_files(cfg.val_evaluator, ''))
    trained = [value for key in ('train_dataloader', 'unlabelled_dataloader')
               for _, value in ann_files(cfg.get(key), '')]
    found = {}
    for value in (*trained, evaluated):
        name = osp.basename(value)
        # a data set's file is named relative to its own root, or lies below the study's
        places = (osp.join(root, osp.dirname(evaluated), name), osp.join(root, value))
        path = next((place for place in places if osp.isfile(place)), None)
        if path is not None:
            with open(path, 'rb') as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def _session_log(work_dir: str) -> str:
    paths = sorted(glob.glob(osp.join(glob.escape(work_dir), '*', '*.log')))
    if not paths:
        return ''
    with open(paths[-1], encoding='utf-8', errors='replace') as file:
        return file.read(20000)


def device_of(work_dir: str) -> str:
    """The GPU that the run's log names, or this machine's CPU."""
    gpu = re.search(r'^\s*GPU 0[\d,]*: (.+)$', _session_log(work_dir), re.MULTILINE)
    if gpu:
        return gpu[1].strip()
    if osp.isfile('/proc/cpuinfo'):
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            model = re.search(r'^model name\s*:\s*(.+)$', file.read(), re.MULTILINE)
        if model:
            return model[1].strip()
    return platform.processor() or platform.machine()


def versions(work_dir: str) -> dict[str, str]:
    """Installed versions; those of PyTorch and MMEngine as the run's own log says them."""
    found = dict(kd_det=__version__, python=platform.python_version())
    for name, packages in (('torch', ['torch']), ('mmengine', ['mmengine', 'mmengine-lite', 'onedl-mmengine']),
                           ('mmdet', ['mmdet', 'onedl-mmdetection']), ('mmcv', ['mmcv', 'mmcv-lite', 'onedl-mmcv']),
                           ('numpy', ['numpy'])):
        for package in packages:
            try:
                found[name] = importlib.metadata.version(package)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    log = _session_log(work_dir)
    for name, title in (('torch', 'PyTorch'), ('mmengine', 'MMEngine')):
        if match := re.search(rf'^\s*{title}: (\S+)$', log, re.MULTILINE):
            found[name] = match[1]
    return found
