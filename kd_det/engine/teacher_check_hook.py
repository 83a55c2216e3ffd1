"""Before training, a look at how good the teacher is: an untrained one teaches nothing, and no loss shows it."""
import time
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..sources import Ensemble
from .distill_hook import distiller_of
from .teacher_figures import aps_by_class, evaluated, why_not

NEAR_ZERO = 0.01  # box AP


class TeacherCheckHook(Hook):
    """Evaluates each frozen teacher on ``teacher.check`` images of the evaluation set before the first step.

    The images are spread evenly over the set, read by the student's evaluation pipeline, and shared between the
    processes. COCO's box AP on them and the time it took are logged; an AP below 0.01, or below ``teacher.baseline``,
    is a loud warning: few images give a rough figure, so it stops nothing. Where no AP can be had (no evaluation set,
    other classes, a teacher of another resolution) the log says that and why. A teacher of an ensemble that knows a
    part of the classes is judged by these. No random state is changed.

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
            places = _places_of(source, model.sources)
            reason = why_not(runner, source, classes=places is None)
            if reason:
                runner.logger.info(f'{source.key}.check: skipped, {reason}')
                continue
            self._check(runner, source, places)

    @staticmethod
    def _check(runner: Runner, source: Any, places: list[int] | None) -> None:
        begin, dataset = time.perf_counter(), runner.val_loop.dataloader.dataset
        count = min(source.check, len(dataset))
        count = count - count % get_world_size() or len(dataset)
        ap = _box_ap(source, dataset, count, places)
        of = '' if places is None else f' of {", ".join(dataset.metainfo["classes"][i] for i in places)}'
        said = f'{source.key}.check: box AP {ap:.3f}{of} on {count} images of the evaluation set, in ' \
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


def _places_of(source: Any, sources: dict[str, Any]) -> list[int] | None:
    """For each class of a teacher its place in the student's list, where an ensemble says so; None: the same list."""
    members = [member for one in sources.values() if isinstance(one, Ensemble) for member in one.members.values()]
    return next((member.class_map for member in members if member.teacher is source), None)


def _box_ap(source: Any, dataset: Any, count: int, places: list[int] | None) -> float:
    """COCO's AP, of a part of the classes their mean; 0 where nothing was detected at all, -1 where is no object."""
    if places is None:
        return evaluated(source, dataset, count).get('coco/bbox_mAP', 0.0)
    found = aps_by_class(source, dataset, count, places)
    known = [found[i] for i in places if found[i] is not None]
    return sum(known) / len(known) if known else -1.0 if any(ap is not None for ap in found) else 0.0
