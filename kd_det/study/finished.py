"""What a finished run of ``kd-det train`` left in its work directory."""
import os
import os.path as osp
import re
from dataclasses import dataclass
from datetime import datetime

from mmengine.config import Config

from ..compare.accuracy import Accuracy
from ..compare.logs import read_log
from ..compare.runs import last_checkpoint
from ..compat.checkpoint import load
from ..errors import CompareError


@dataclass
class Finished:
    """A run whose last epoch was validated: ``cfg`` as dumped, ``accuracy`` in percent, ``seconds`` of all sessions.

    Of a CoLAD run also ``peer``, the second network's accuracy, and ``first_teaches``, the share of decisions that the
    first network took, over the whole training.
    """
    cfg: Config
    accuracy: Accuracy
    checkpoint: str
    seconds: float
    peer: Accuracy | None = None
    first_teaches: float | None = None


def run_config(work_dir: str) -> Config | None:
    """The resolved config of the run in a work directory; None if none began there."""
    if not osp.isdir(work_dir):
        return None
    path = read_log(work_dir).config
    if path is None:
        dumped = sorted(name for name in os.listdir(work_dir) if name.endswith('.py'))
        path = osp.join(work_dir, dumped[0]) if dumped else None
    return path and Config.fromfile(path, import_custom_modules=False)


def read_finished(work_dir: str) -> Finished | None:
    """The figures of the LAST epoch's validation; None if the run has not come so far, or its weights are gone.

    An earlier validation never counts: there is no model selection.
    """
    cfg = run_config(work_dir)
    if cfg is None:
        return None
    epochs = cfg.train_cfg.max_epochs
    log = read_log(work_dir)
    last = [record for record in log.records if record.split == 'val' and record.epoch == epochs]
    if not last:
        return None
    checkpoint = checkpoint_of(work_dir)
    return checkpoint and Finished(cfg, last[-1].accuracy, checkpoint, wall_seconds(work_dir), last[-1].peer,
                                   last[-1].peer and _first_teaches(checkpoint))


def _first_teaches(checkpoint: str) -> float | None:
    """Of a CoLAD run, from its last checkpoint."""
    taught = (load(checkpoint).get('kd_det') or {}).get('taught')
    return taught['first'] / taught['decisions'] if taught and taught['decisions'] else None


def checkpoint_of(work_dir: str) -> str | None:
    """The run's latest checkpoint; None if there is none or it was deleted."""
    try:
        return last_checkpoint(work_dir)
    except CompareError:
        return None


def wall_seconds(work_dir: str) -> float:
    """From the first to the last line of each session's log, summed over the sessions."""
    total = 0.0
    for name in sorted(os.listdir(work_dir)):
        path = osp.join(work_dir, name, f'{name}.log')
        if osp.isfile(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                stamps = re.findall(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', file.read(), re.MULTILINE)
            times = [datetime.strptime(stamp, '%Y/%m/%d %H:%M:%S') for stamp in stamps]
            total += (times[-1] - times[0]).total_seconds() if times else 0.0
    return total
