"""Evaluate the checkpoint of a finished run, and keep its detections beside its figures.

The bootstrap over images and the analysis of errors start from detections; so do figures that are not rounded.
"""
import json
import os
import os.path as osp
import shutil
from dataclasses import dataclass

from ..compare.accuracy import Accuracy
from ..compare.detections import SUFFIX, file_hash, write_detections
from ..compare.evaluation import evaluate, exact_accuracy
from ..compare.runs import find_run
from ..compare.student import build_detector, deployed_model
from ..errors import StudyError
from ..files import write_whole
from ..weights import read_state_dict
from .definition import StudyRow
from .records import record_path

FILE = 'evaluation.json'
TOLERANCE = 0.3
"""AP points between a checkpoint's evaluation and what the run's log says: rounding to 0.1 and another device's sums.
"""


@dataclass
class Evaluated:
    """One network of a run: figures that are not rounded, and the file of its detections with its SHA-256."""
    accuracy: Accuracy
    path: str
    sha: str


def evaluate_run(run_dir: str, folder: str, data_root: str | None = None) -> None:
    """Evaluate the last checkpoint of a work directory, of a CoLAD run both networks, on its validation set.

    Writes into ``folder`` ``first.detections.json.gz``, with CoLAD ``second.detections.json.gz``, and at last
    :data:`FILE`.

    Raises:
        CompareError, ConfigError, CheckpointMismatch: no run there, no such data, or weights that do not fit.
    """
    run = find_run(run_dir, data_root=data_root)
    content = {}
    for network in ('first', 'second') if run.cfg.model.get('type') == 'CoLAD' else ('first',):
        state, _ = read_state_dict(run.checkpoint, network)
        model = deployed_model(run.cfg, None if network == 'first' else network)
        build_detector(run.cfg, state, run.checkpoint, model)  # refuses weights that do not fit, and says which
        found = evaluate(run.cfg, model, state, 'val')
        accuracy = exact_accuracy(found)
        sha = write_detections(osp.join(folder, network + SUFFIX), found.detections)
        content[network] = dict(accuracy=accuracy.figures, per_class=accuracy.per_class, sha256=sha)
    write_whole(osp.join(folder, FILE), json.dumps(content, indent=1) + '\n')


def read_evaluation(folder: str) -> dict[str, Evaluated]:
    """What :func:`evaluate_run` wrote, by network.

    Raises:
        StudyError: nothing there, or a file of detections that is not the one that was written.
    """
    path = osp.join(folder, FILE)
    if not osp.isfile(path):
        raise StudyError(f'no evaluation in {folder!r}')
    with open(path, encoding='utf-8') as file:
        content = json.load(file)
    found = {}
    for network, entry in content.items():
        detections = osp.join(folder, network + SUFFIX)
        if not osp.isfile(detections) or file_hash(detections) != entry['sha256']:
            raise StudyError(f'{detections} is not what {path} was computed from; delete the folder and evaluate again')
        found[network] = Evaluated(Accuracy(entry['accuracy'], entry['per_class']), detections, entry['sha256'])
    return found


def agree(name: str, logged: Accuracy, evaluated: Accuracy) -> None:
    """Refuse an evaluation that contradicts the run's own last validation.

    Raises:
        StudyError: the AP differ by more than :data:`TOLERANCE`.
    """
    one, other = logged.figures['AP'], evaluated.figures['AP']
    if one is None or other is None or abs(one - other) > TOLERANCE:
        raise StudyError(f'{name}: the checkpoint evaluates to AP {other}, the run\'s last validation says {one}; is '
                         'it the last epoch\'s checkpoint, and the data the same?')


def detections_path(results: str, row: StudyRow, seed: int) -> str:
    """Where the detections of a row's seed are kept: beside its record."""
    stem = record_path(results, row, seed).removesuffix('.json')
    return stem + ('.second' if row.network == 'second' else '') + SUFFIX


def keep_detections(found: dict[str, Evaluated], results: str, row: StudyRow, seed: int) -> None:
    """Copy the detections of a run's networks to where :func:`detections_path` looks for them."""
    stem = record_path(results, row, seed).removesuffix('.json')
    os.makedirs(osp.dirname(stem), exist_ok=True)
    for network, evaluated in found.items():
        target = stem + ('.second' if network == 'second' else '') + SUFFIX
        with open(evaluated.path, 'rb') as source:
            write_whole(target, lambda file, source=source: shutil.copyfileobj(source, file))
