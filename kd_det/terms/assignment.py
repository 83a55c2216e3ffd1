"""Label assignment: the teacher says which priors serve which object (Nguyen et al. 2022)."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads import PAAHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.utils import unpack_gt_instances
from torch import Tensor, nn

from ..arguments import boolean, one_of
from ..assignment.dynamic import decides_statically_now, decisions_of_batch, dynamic_assigners
from ..assignment.record import Assignments, record
from ..assignment.replay import replay
from ..build import checked
from ..errors import ConfigError
from ..heads.dense_outputs import training_format
from ..sources.layers import flatten_levels
from ..sources.passes import Pass
from .box_coding import same_coder
from .dense import check_dense_pair
from .step import Step
from .term import Term


class LabelAssignment(Term):
    """The teacher scores the batch and its head assigns; the student's own, unmodified loss uses these positives.

    How good the positives are is judged by the student's own predictions (the table in
    :mod:`kd_det.assignment.dynamic`). For heads that assign by predictions: PAA, TOOD, RTMDet, YOLOX, DDOD.
    ``teacher_positives`` in the log is the number of positives per image that the teacher chose.

    Args:
        box_loss_average (str | None): 'paper' averages the box loss over the positives, as the
            paper's LAD does; 'head' leaves it as the head has it (PAA weights by the student's
            IoU). None: 'paper' for PAA, 'head' for other heads, which know no other.
        dynamic_from_start (bool): TOOD assigns statically in its first epochs, because predictions
            mean little then. A teacher is trained, so by default its dynamic assignment and the
            losses that belong to it are used from the first step on. False: TOOD's own schedule;
            there is nothing to distil in those epochs.
        copy_quality (bool): copy the teacher's soft targets and weights with its positives. See
            :func:`kd_det.assignment.replay.replay` for the danger.
        **term: see :class:`kd_det.terms.term.Term`; an assignment is all or nothing, so there is no decay.

    Raises:
        ConfigError: a head without dynamic assignment or of another geometry than the teacher's;
            unknown values.
        AssignmentMismatch: in a step, teacher and student see other priors or ground truths.
        ValueError: in a step, the teacher's predictions are not finite.

    Source: Nguyen et al., "Improving Object Detection by Label Assignment Distillation", WACV 2022.
    """

    needs_labels = 'which priors serve which of its objects is all that is taught'
    compares_classes = True

    def __init__(self, box_loss_average: str | None = None, dynamic_from_start: bool = True, copy_quality: bool = False,
                 **term: Any) -> None:
        super().__init__(**term)
        for name, value in (('dynamic_from_start', dynamic_from_start), ('copy_quality', copy_quality)):
            checked(f'{self.key}.{name}', boolean, value)
        checked('box_loss_average', one_of, box_loss_average, (None, 'paper', 'head'))
        if self.schedule.decay is not None:
            raise ConfigError(f'{self.key}.decay: an assignment cannot be weakened; use start_epoch and stop_epoch')
        self.box_loss_average, self.copy_quality = box_loss_average, copy_quality
        self.dynamic_from_start = dynamic_from_start

    # -- build ------------------------------------------------------------------------------------------------------
    def check(self, student: nn.Module, source: Any) -> None:
        head, theirs = getattr(student, 'bbox_head', None), getattr(source.model, 'bbox_head', None)
        if head is not None and theirs is not None:
            self._check_deciders(head, theirs, source.key)
        head, theirs = check_dense_pair('label assignment', student, source, same_anchors=True)
        if head.num_classes != theirs.num_classes:
            raise ConfigError(f'bbox_head.num_classes: {head.num_classes}, the teacher has {theirs.num_classes}')
        paa = isinstance(head, PAAHead)
        if self.box_loss_average == 'paper' and not paa:
            raise ConfigError(f'box_loss_average=\'paper\' is for PAA with lad=True; {type(head).__name__}\'s box loss '
                              'keeps its own weights, which hold it together')
        self.box_loss_average = self.box_loss_average or ('paper' if paa else 'head')
        if self.dynamic_from_start and getattr(head, 'initial_epoch', 0):
            head.initial_epoch = 0
        if getattr(theirs, 'initial_epoch', 0):
            theirs.initial_epoch = 0  # the teacher's own first epochs are over
        self._from_outputs = decides_from_outputs(theirs)
        self._same_candidates = paa and head.train_cfg == theirs.train_cfg and \
            head.reg_decoded_bbox == theirs.reg_decoded_bbox and same_coder(head.bbox_coder, theirs.bbox_coder)

    @staticmethod
    def _check_deciders(head: nn.Module, theirs: nn.Module, key: str) -> None:
        ours = dynamic_assigners(head)
        try:
            others = dynamic_assigners(theirs)
        except ConfigError as error:
            raise ConfigError(f'{key}.config: {error}') from error
        if isinstance(head, PAAHead) != isinstance(theirs, PAAHead) or list(ours) != list(others):
            raise ConfigError(f'{key}.config: {type(theirs).__name__} decides in {list(others) or "paa_reassign"}, the '
                              f'student\'s {type(head).__name__} in {list(ours) or "paa_reassign"}; LAD needs heads '
                              'that decide alike')

    def asks(self) -> tuple[str, ...] | None:
        return ('dense',) if self._from_outputs else None

    # -- the step ---------------------------------------------------------------------------------------------------
    def around(self, step: Step) -> None:
        head = step.student.bbox_head
        self._decided: Assignments | None = None
        if decides_statically_now(head):
            return
        with torch.no_grad():
            self._decided = decisions(step.source(self.source), [len(s.gt_instances) for s in step.samples])
        step.enter(replay(head, self._decided, self.copy_quality,
                          targets=self._decided.targets if self._same_candidates else None))
        if self.box_loss_average == 'paper':
            step.enter(average_over_positives(head.loss_bbox))

    def losses(self, step: Step) -> dict[str, Tensor]:
        if self._decided is None:
            return {}
        found = [_positives(decision.result) for decision in self._decided.decisions]
        total = torch.stack([count.float() for count in found]).sum() if found else step.inputs.new_zeros(())
        self._decided = None
        # PAA counts on the host
        return {'teacher_positives' + self.suffix: total.to(step.inputs.device) / len(step.samples)}

    def connect(self, student: nn.Module, source: Any) -> None:
        head, theirs = student.bbox_head, source.model.bbox_head
        where = ', '.join(dynamic_assigners(head)) or 'paa_reassign'
        quality = 'the teacher\'s (copy_quality)' if self.copy_quality else 'the student\'s own'
        schedule = self.schedule.describe()
        self._plan = [f'assignment: the {self.source}\'s, at {type(head).__name__}.{where}; quality of positives: '
                      f'{quality}; box loss averaged as in the {self.box_loss_average}'
                      + (f', {schedule}' if schedule else '')]
        if type(theirs) is PAAHead:
            self._plan.append(f'    the teacher fits its mixtures one by one; {source.key}.cfg_options='
                              '{\'model.bbox_head.type\': \'BatchedPAAHead\'} fits them all at once')
        if getattr(head, 'initial_epoch', 0) > 0:
            self._plan.append(f'    not in the first {head.initial_epoch} epochs, where {type(head).__name__} assigns '
                              'statically (dynamic_from_start=False)')

    def teaches(self) -> bool:
        return True

    def describe(self) -> list[str]:
        return self._plan


def decisions(teacher: Pass, counts: list[int]) -> Assignments:
    """What the teacher's head decides on a batch with ``counts`` ground truths in its images.

    Raises:
        ValueError: the teacher's predictions are not finite; its decisions would mean nothing.
    """
    head = teacher.model.bbox_head
    count = decisions_of_batch(head, counts)
    if count == 0:
        return Assignments(type(head).__name__)
    outputs = teacher.dense()
    sums = torch.stack([level.float().sum() for level in flatten_levels(outputs)])
    if not bool(sums.isfinite().all()):
        raise ValueError(f'label assignment: the predictions of the teacher\'s {type(head).__name__} are inf or nan; '
                         'nothing it decides means anything. Evaluate teacher.checkpoint; under mixed precision try '
                         'bf16')
    with training_format(head), record(head, stop_after=count) as assignments:
        if decides_from_outputs(head):
            truths, ignored, metas = unpack_gt_instances(teacher.samples)
            head.loss_by_feat(*outputs, truths, metas, ignored)
        else:
            head.loss(teacher.features, teacher.samples)
    return assignments


def decides_from_outputs(head: nn.Module) -> bool:
    """Whether a dense head's loss needs no more than its outputs, as MMDetection's own do."""
    return type(head).loss is BaseDenseHead.loss


def _positives(result: Any) -> Tensor:
    """How many priors a decision makes positive."""
    if isinstance(result, tuple):  # PAA: labels, label weights, box weights, count
        return torch.as_tensor(result[3])
    return (result.gt_inds > 0).sum()


@contextmanager
def average_over_positives(loss_bbox: nn.Module) -> Iterator[None]:
    """The box loss as the mean over the boxes it is given, whatever weights come with them."""
    def unweighted(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args[:2], dict(avg_factor=len(args[0]))

    handle = loss_bbox.register_forward_pre_hook(unweighted, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
