"""Run MMDetection's evaluation of a deployed detector, and keep what it detected."""
import contextlib
import copy
import sys
import tempfile
import uuid
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.logging import print_log

from ..engine.data_check import check_data
from ..errors import CompareError
from .accuracy import FIGURES, Accuracy, accuracy_of, dataset_of
from .detections import KeptDetections
from .matching import figures, load_truth, match, precisions


@dataclass
class Evaluation:
    """What an evaluation found.

    Attributes:
        accuracy (Accuracy): as the metrics of the config say it; MMDetection rounds COCO figures to 0.1 percent.
        detections (list[dict] | None): in COCO's result format; None where the data set is not in COCO's format.
        truth (str | None): its annotation file.
        classes (list[str]): in the order of the detector's labels.
        image_folder (str): what file names of the annotation file are relative to.
    """
    accuracy: Accuracy
    detections: list[dict] | None
    truth: str | None
    classes: list[str]
    image_folder: str = ''


def evaluate(cfg: Config, model: dict, state_dict: dict, split: str) -> Evaluation:
    """Run MMDetection's test loop on the deployed detector, on the device that MMEngine picks.

    Nothing is written beside the run, and hooks of training take no part.

    Args:
        cfg (Config): config of the run; its ``<split>_dataloader`` and ``<split>_evaluator`` count.
        model (dict): model config of the deployed detector.
        state_dict (dict): its weights, known to fit.
        split (str): ``'val'`` or ``'test'``.

    Raises:
        CompareError: the config has no such evaluation, or the evaluation gives no box AP.
        DataError: the data set is missing or broken.
    """
    from mmengine.runner import Runner
    for key in (f'{split}_dataloader', f'{split}_evaluator'):
        if not cfg.get(key):
            raise CompareError(f'cannot evaluate: the config has no {key}')
    for level, text in check_data(cfg, (f'{split}_dataloader',)):
        if level == 'warning':
            print_log(text, 'current', level=30)
    hooks = {name: hook for name, hook in (cfg.get('default_hooks') or {}).items()
             if name not in ('visualization', 'checkpoint')}
    with tempfile.TemporaryDirectory() as work_dir, contextlib.redirect_stdout(sys.stderr):
        runner = Runner.from_cfg(Config({
            'model': copy.deepcopy(model),
            'work_dir': work_dir,
            'test_dataloader': copy.deepcopy(cfg[f'{split}_dataloader']),
            'test_evaluator': copy.deepcopy(cfg[f'{split}_evaluator']),
            'test_cfg': cfg.get('test_cfg') or {'type': 'TestLoop'},
            'default_hooks': hooks,
            'default_scope': cfg.get('default_scope', 'mmdet'),
            'env_cfg': cfg.get('env_cfg') or {'dist_cfg': {'backend': 'nccl'}},
            'randomness': cfg.get('randomness') or {'seed': 0},
            'log_processor': cfg.get('log_processor'),
            'log_level': 'ERROR',
            # a second evaluation in this process must not share the first one's logger and folder
            'experiment_name': f'compare-{uuid.uuid4().hex}'}))
        runner.model.load_state_dict(state_dict, strict=True)
        dataset = runner.test_dataloader.dataset
        kept = None
        if getattr(dataset, 'cat_ids', None):  # a CocoDataset
            kept = KeptDetections(dataset.cat_ids)
            runner.test_evaluator.metrics.append(kept)
        accuracy = accuracy_of(runner.test())
    found = Evaluation(accuracy, kept and kept.detections, kept and dataset_of(cfg, split),
                       list(dataset.metainfo.get('classes') or ()),
                       (getattr(dataset, 'data_prefix', None) or {}).get('img') or '')
    if accuracy is None and kept and found.truth and not kept.detections:
        # CocoMetric gives no figures for a detector that finds nothing: they are 0
        found.accuracy = exact_accuracy(found)
    if found.accuracy is None:
        raise CompareError(f'the {split}_evaluator of the config gives no box AP')
    return found


def exact_accuracy(evaluation: Evaluation) -> Accuracy:
    """COCO's figures of the kept detections, not rounded.

    Raises:
        CompareError: the evaluation kept none, because the data set is not in COCO's format.
    """
    if evaluation.detections is None or evaluation.truth is None:
        raise CompareError('no detections were kept: the data set is not in COCO\'s format (CocoDataset)')
    matches = match(load_truth(evaluation.truth), evaluation.detections, evaluation.classes)
    found = {name: None if value[0] != value[0] else round(float(value[0]), 6)  # NaN: nothing to measure
             for name, value in figures(precisions(matches), matches.classes).items()}
    return Accuracy({name: found[name] for name in FIGURES},
                    {name: found[f'class/{name}'] for name in evaluation.classes})
