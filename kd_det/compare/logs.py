"""What a work directory recorded: losses by iteration, AP by epoch, results of ``kd-det test``.

MMEngine makes one folder per session, ``<work dir>/<timestamp>/``. Training and validation are lines of JSON in its
``vis_data/<timestamp>.json``; a test is one object in ``<timestamp>.json``.
"""
import json
import os
import os.path as osp
from dataclasses import dataclass, field

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import CompareError
from .accuracy import Accuracy, accuracy_of, dataset_of


@dataclass
class Record:
    """One evaluation.

    Attributes:
        split (str): ``'val'`` or ``'test'``: which loop of the config it was.
        accuracy (Accuracy): the figures.
        dataset (str | None): annotation file that they refer to.
        epoch, iter (int | None): of training at that moment, as far as the log tells.
        checkpoint (str | None): what a test loaded, as far as the log tells.
        peer (Accuracy | None): of CoLAD's second network.
    """
    split: str
    accuracy: Accuracy
    dataset: str | None = None
    epoch: int | None = None
    iter: int | None = None
    checkpoint: str | None = None
    peer: Accuracy | None = None


@dataclass
class RunLog:
    """The sessions of a work directory joined: a resumed session replaces what it repeats.

    Attributes:
        train (list[dict]): training lines in order, with ``loss``, ``iter`` and, if the run counts in epochs, ``epoch``
            (1-based).
        records (list[Record]): evaluations in order.
        config (str | None): resolved config of the last session that trained.
    """
    train: list[dict] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    config: str | None = None

    def iters_per_epoch(self) -> int | None:
        """Length of an epoch; None if the run counts in iterations.

        Line i of epoch e says i <= e * length; the largest i / e, rounded up, is the length as soon as the last logged
        line of some epoch is less than e iterations from its end.
        """
        lines = [line for line in self.train if line.get('epoch')]
        if not lines or len(lines) < len(self.train):
            return None
        return max(-(-line['iter'] // line['epoch']) for line in lines)


def read_log(work_dir: str) -> RunLog:
    """Read every session below a work directory.

    Raises:
        CompareError: a log line that is not JSON. Only an unfinished last line, which a killed run leaves behind, is
            skipped, with a warning.
    """
    log = RunLog()
    for name in sorted(os.listdir(work_dir)):
        session = osp.join(work_dir, name)
        if osp.isdir(session):
            _read_session(log, session, name)
    return log


def _read_session(log: RunLog, session: str, name: str) -> None:
    config_path = osp.join(session, 'vis_data', 'config.py')
    cfg = None
    lines_path = osp.join(session, 'vis_data', f'{name}.json')
    if not osp.isfile(lines_path):
        lines_path = osp.join(session, 'vis_data', 'scalars.json')
    test_path = osp.join(session, f'{name}.json')
    if not (osp.isfile(lines_path) or osp.isfile(test_path)):
        return
    if osp.isfile(config_path):
        cfg = Config.fromfile(config_path, import_custom_modules=False)
    if osp.isfile(lines_path):
        lines = _json_lines(lines_path)
        if any(_is_training(line) for line in lines):
            log.config = config_path if cfg is not None else log.config
        _add_lines(log, lines, cfg)
    if osp.isfile(test_path):
        accuracy = accuracy_of(_json_object(test_path))
        if accuracy is not None:
            log.records.append(Record('test', accuracy, dataset_of(cfg, 'test'),
                                      checkpoint=cfg.get('load_from') if cfg else None))


def _is_training(line: dict) -> bool:
    return 'loss' in line and 'iter' in line


def _add_lines(log: RunLog, lines: list[dict], cfg: Config | None) -> None:
    hook = ((cfg or {}).get('default_hooks') or {}).get('logger') or {}
    by_epoch = hook.get('log_metric_by_epoch', True)
    first = next((line for line in lines if _is_training(line)), None)
    if first is not None:
        log.train = [line for line in log.train if line['iter'] < first['iter']]
        log.records = [record for record in log.records if not _repeated(record, first)]
    reached = log.train[-1]['iter'] if log.train else None
    for line in lines:
        if _is_training(line):
            log.train.append(line)
            reached = line['iter']
            continue
        accuracy = accuracy_of(line)
        if accuracy is not None:
            step = line.get('step')
            log.records.append(Record(
                'val', accuracy, dataset_of(cfg, 'val'), epoch=step if by_epoch else None,
                iter=reached if by_epoch else step, peer=accuracy_of(line, 'peer/')))


def _repeated(record: Record, first: dict) -> bool:
    """Whether a session whose first training line is ``first`` makes this evaluation obsolete."""
    if record.split == 'test':
        return True  # the weights that were tested have been trained on
    if record.epoch is not None and 'epoch' in first:
        return record.epoch >= first['epoch']
    return record.iter is not None and record.iter >= first['iter']


def _json_lines(path: str) -> list[dict]:
    with open(path, encoding='utf-8') as file:
        texts = file.read().split('\n')
    lines = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError('not an object')
        except ValueError as error:
            if number == len(texts):  # no newline after it
                print_log(f'{path}: the last line is incomplete and left out', 'current', level=30)
                break
            raise CompareError(f'{path}, line {number}: expected a JSON object, found '
                               f'{text[:60]!r} ({error})') from error
        lines.append(line)
    return lines


def _json_object(path: str) -> dict:
    try:
        with open(path, encoding='utf-8') as file:
            record = json.load(file)
    except ValueError as error:
        raise CompareError(f'{path}: not JSON ({error}); delete it, or test again') from error
    if not isinstance(record, dict):
        raise CompareError(f'{path}: expected the JSON object that a test writes, found '
                           f'{type(record).__name__}')
    return record
