"""Make a dense head's own loss use assignments that another head decided on."""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from mmdet.models.dense_heads import PAAHead
from mmdet.models.task_modules.assigners import AssignResult
from torch import Tensor, nn

from ..errors import AssignmentMismatch
from .dynamic import quality_of
from .record import Assignments, Call, Decision, copied, intercept, overridden


@contextmanager
def replay(head: nn.Module, assignments: Assignments, copy_quality: bool = False,
           targets: tuple | None = None) -> Iterator[None]:
    """In the block, ``head`` takes its decisions from ``assignments`` (see :func:`record`)::

        with replay(student_head, assignments):
            losses = student_head.loss(features, samples)

    Which priors serve which object comes from the record. How good they are (soft targets, weights)
    is recomputed from this head's own predictions at those priors; the table in
    :mod:`kd_det.assignment.dynamic` says what that is for each head.

    Args:
        head: asks the same questions, in the same order, as the recorded head did.
        assignments: the record. It can be replayed any number of times.
        copy_quality: take the recorded quality too. DANGER: the student is then told to be as good
            as the teacher is, and a box loss weighted by the teacher's IoU pulls at boxes that the
            student's own weight would have left out; RTMDet without ``exp_on_reg`` diverged so.
        targets: PAA: what ``get_targets`` of this head gave for this batch (``Call.targets``), so that
            it is not computed again.

    Raises:
        AssignmentMismatch: number or order of decisions, priors, ground truths or candidates
            differ. Values are compared at the end of the block, in one device synchronisation.
        ConfigError: as in :func:`record`.
    """
    checks = _Checks()
    place = iter(range(1_000_000_000))

    def decide(call: Call) -> AssignResult | tuple:
        index = next(place)
        if index >= len(assignments):
            raise AssignmentMismatch(
                f'{type(head).__name__} asks for decision {index + 1} ({call.source}); '
                f'{assignments.head} made only {len(assignments)}')
        decision = assignments.decisions[index]
        if decision.source != call.source:
            raise AssignmentMismatch(f'decision {index + 1}: {type(head).__name__} asks {call.source}, '
                                     f'{assignments.head} had asked {decision.source}')
        checks.compare(index, decision, call)
        if isinstance(head, PAAHead):
            return copied(decision.result)
        return _judged(decision, call, copy_quality)

    with ExitStack() as stack:
        stack.enter_context(intercept(head, decide, targets))
        if isinstance(head, PAAHead):
            # a student's costs only serve its own decision, which is not asked for
            stack.enter_context(overridden(head, get_pos_loss=_no_costs))
        try:
            yield
        except AssignmentMismatch:
            raise
        except Exception as error:
            checks.conclude(cause=error)  # a wrong assignment explains most errors
            raise
    checks.conclude()
    used = next(place)
    if used < len(assignments):
        raise AssignmentMismatch(f'{type(head).__name__} asked for {used} decisions; '
                                 f'{assignments.head} made {len(assignments)}')


def _no_costs(anchors: list[Tensor], cls_score: Tensor, *_: Tensor) -> tuple[Tensor]:
    return cls_score.new_empty(0),


def _judged(decision: Decision, call: Call, copy_quality: bool) -> AssignResult:
    """The recorded positives with the student's own quality."""
    result = copied(decision.result)
    if not copy_quality:
        quality = quality_of(call.owner)(call.owner, call.arguments, result.gt_inds)
        for name, value in quality.items():
            setattr(result, name, value)
    return result


class _Checks:
    """Compares shapes at once and values later, so that a GPU is not waited for at each decision."""

    def __init__(self) -> None:
        self._equal: list[Tensor] = []
        self._about: list[tuple[int, str, Tensor, Tensor]] = []

    def compare(self, index: int, decision: Decision, call: Call) -> None:
        recorded, asked = decision.evidence, call.evidence
        if recorded.keys() != asked.keys():
            raise AssignmentMismatch(f'decision {index + 1} ({call.source}): the recorded head had '
                                     f'{list(recorded)}, this one has {list(asked)}')
        for name, ours in asked.items():
            theirs = recorded[name]
            if ours.shape != theirs.shape:
                self.conclude()  # other values asked about before explain other shapes
                raise AssignmentMismatch(
                    f'decision {index + 1} ({call.source}): {name}: {tuple(theirs.shape)} recorded, '
                    f'{tuple(ours.shape)} now; both networks need the same padding '
                    '(data_preprocessor.pad_size_divisor), prior generator and train_cfg')
            if ours is not theirs:
                self._equal.append((ours == theirs).all())
                self._about.append((index, call.source, name, theirs, ours))

    def conclude(self, cause: Exception | None = None) -> None:
        if not self._equal or bool(torch.stack(self._equal).all()):
            return
        first = next(i for i, equal in enumerate(self._equal) if not equal)
        index, source, name, theirs, ours = self._about[first]
        where = (theirs != ours).nonzero()[0, 0]
        raise AssignmentMismatch(
            f'decision {index + 1} ({source}): {name} differ, first at {int(where)}: '
            f'{theirs[where].tolist()} recorded, {ours[where].tolist()} now') from cause
