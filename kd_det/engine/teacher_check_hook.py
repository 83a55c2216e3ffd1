"""Before training, a look at how good the teacher is: an untrained one teaches nothing, and no loss shows it."""
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.evaluation import CocoMetric
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..random_state import cpu_random_state, set_cpu_random_state
from ..sources import Ensemble, RecordedTeacher
from .distill_hook import distiller_of

NEAR_ZERO = 0.01  # box AP


class TeacherCheckHook(Hook):
    """Evaluates each frozen teacher on ``teacher.check`` images of the evaluation set before the first step.

    The images are spread evenly over the set, read by the student's evaluation pipeline, and shared between the
    processes. COCO's box AP on them and the time it took are logged; an AP below 0.01, or below ``teacher.baseline``, is a
    loud warning: few images give a rough figure, so it stops nothing. Where no AP can be had (no evaluation set, other
    classes, a teacher of another resolution) the log says that and why. No random state is changed.

    Every runner of a distiller has it (:func:`kd_det.engine.attach.attach_to_runner`).
    """

    priority = 'LOWEST'  # after the checks that refuse a run

    def before_train(self, runner: Runner) -> None:
        model = distiller_of(runner)
        for name, source in model.sources.items():
            if source.trains or isinstance(source, Ensemble):
                continue  # the members of an ensemble are sources too
            if not source.check or not model.reached(name, list(model.terms)):
                continue
            reason = _why_not(runner, source)
            if reason:
                runner.logger.info(f'{source.key}.check: skipped, {reason}')
                continue
            self._check(runner, source)

    @staticmethod
    def _check(runner: Runner, source: Any) -> None:
        begin, dataset = time.perf_counter(), runner.val_loop.dataloader.dataset
        count = min(source.check, len(dataset))
        count = count - count % get_world_size() or len(dataset)
        metric = CocoMetric(metric='bbox')
        metric.dataset_meta = dataset.metainfo
        with _same_random_state(), torch.no_grad():
            for i in range(count)[get_rank()::get_world_size()]:
                _judge(metric, source, dataset, i * len(dataset) // count)
            ap = metric.evaluate(count).get('coco/bbox_mAP', 0.0)  # nothing was detected at all: the metric has no figure
        said = f'{source.key}.check: box AP {ap:.3f} on {count} images of the evaluation set, in ' \
            f'{time.perf_counter() - begin:.1f} s (check=0 leaves it out)'
        if ap < 0:  # COCO's figure where there is no object
            runner.logger.info(f'{source.key}.check: skipped, {count} images of the evaluation set hold no object')
        elif ap < NEAR_ZERO:
            runner.logger.warning(f'{said}. THIS TEACHER FINDS NEXT TO NOTHING: it is untrained, was trained on other '
                                  f'classes or images, or {source.key}.config normalises otherwise than in its training '
                                  f'(checkpoint {source.checkpoint})')
        elif source.baseline is not None and ap < source.baseline:
            runner.logger.warning(f'{said}. THIS IS BELOW {source.key}.baseline={source.baseline:g}: evaluate '
                                  f'{source.checkpoint} on all images')
        else:
            runner.logger.info(said)


def _why_not(runner: Runner, source: Any) -> str | None:
    """Why no AP can be had; None where it can."""
    if runner.val_loop is None:
        return 'there is no evaluation set (val_dataloader)'
    if isinstance(source, RecordedTeacher) and len(source.shards):
        return f'its answers are recorded in {source.record.folder}'
    dataset = runner.val_loop.dataloader.dataset
    classes = tuple(dataset.metainfo.get('classes') or ())
    if source.scale_factor != 1:
        return f'the evaluation set is of the student\'s resolution, the teacher sees {source.scale_factor} times it'
    if source.classes is not None and tuple(source.classes) != classes:
        return f'it knows the classes {tuple(source.classes)}, the evaluation set {classes}'
    if not len(dataset) or not hasattr(dataset, 'get_data_info'):
        return f'{type(dataset).__name__} cannot be read image by image'
    return None


def _judge(metric: CocoMetric, source: Any, dataset: Any, index: int) -> None:
    """One image's detections and ground truth, into ``metric``."""
    truth = dataset.get_data_info(index).get('instances', [])
    sample = source.network.test_step(pseudo_collate([dataset[index]]))[0]
    metric.process({}, [dict(sample.to_dict(), instances=truth)])


@contextmanager
def _same_random_state() -> Iterator[None]:
    """Leaves the random states of Python, NumPy and PyTorch, on every device, as they were."""
    before = cpu_random_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        set_cpu_random_state(before)
