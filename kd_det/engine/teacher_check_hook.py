"""Before training, a look at how good the teacher is: an untrained one teaches nothing, and no loss shows it."""
import time
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..sources import Ensemble
from .distill_hook import distiller_of
from .teacher_figures import evaluated, why_not

NEAR_ZERO = 0.01  # box AP


class TeacherCheckHook(Hook):
    """Evaluates each frozen teacher on ``teacher.check`` images of the evaluation set before the first step.

    The images are spread evenly over the set, read by the student's evaluation pipeline, and shared between the
    processes. COCO's box AP on them and the time it took are logged; an AP below 0.01, or below ``teacher.baseline``,
    is a loud warning: few images give a rough figure, so it stops nothing. Where no AP can be had (no evaluation set,
    other classes, a teacher of another resolution) the log says that and why. No random state is changed.

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
            reason = why_not(runner, source)
            if reason:
                runner.logger.info(f'{source.key}.check: skipped, {reason}')
                continue
            self._check(runner, source)

    @staticmethod
    def _check(runner: Runner, source: Any) -> None:
        begin, dataset = time.perf_counter(), runner.val_loop.dataloader.dataset
        count = min(source.check, len(dataset))
        count = count - count % get_world_size() or len(dataset)
        ap = evaluated(source, dataset, count).get('coco/bbox_mAP', 0.0)  # nothing was detected at all: no figure
        said = f'{source.key}.check: box AP {ap:.3f} on {count} images of the evaluation set, in ' \
            f'{time.perf_counter() - begin:.1f} s (check=0 leaves it out)'
        if ap < 0:  # COCO's figure where there is no object
            runner.logger.info(f'{source.key}.check: skipped, {count} images of the evaluation set hold no object')
        elif ap < NEAR_ZERO:
            runner.logger.warning(f'{said}. THIS TEACHER FINDS NEXT TO NOTHING: it is untrained, was trained on other '
                                  f'classes or images, or {source.key}.config normalises otherwise than in its '
                                  f'training (checkpoint {source.checkpoint})')
        elif source.baseline is not None and ap < source.baseline:
            runner.logger.warning(f'{said}. THIS IS BELOW {source.key}.baseline={source.baseline:g}: evaluate '
                                  f'{source.checkpoint} on all images')
        else:
            runner.logger.info(said)
