"""Label-assignment distillation: the teacher says which priors serve which object (Nguyen et al. 2022)."""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads import PAAHead
from mmdet.models.detectors import SingleStageDetector
from torch import Tensor, nn

from ..assignment.dynamic import decides_statically_now, decisions_of_batch, dynamic_assigners
from ..assignment.record import Assignments, record
from ..assignment.replay import replay
from ..errors import ConfigError
from ..tap import tap_layer
from .dense_outputs import check_same_priors, training_format
from .distiller import DistillerMixin
from .soft_label import SoftLabelTerms


class LADDistiller(DistillerMixin, SingleStageDetector):
    """A single-stage detector that learns from a teacher's label assignment.

    The teacher scores the batch and its head assigns; the student's own, unmodified loss uses these
    positives, and judges them by its own predictions (the table in
    :mod:`kd_det.assignment.dynamic`). With ``soft_label`` it is SoLAD: L = L_LAD + L_soft.

    The student is any ``SingleStageDetector`` config whose head assigns by predictions: PAA, TOOD,
    RTMDet, YOLOX, DDOD. The teacher is any detector with a head of the same geometry.

    Args:
        teacher (dict): see :class:`kd_det.teacher.FrozenTeacher`; ``scale_factor`` must be 1.
        lad (bool): False leaves the student its own assignment.
        soft_label (dict | None): SoLAD's second part, see
            :class:`kd_det.detectors.soft_label.SoftLabelTerms`; ``dict()`` takes the paper's values
            (class weight 2, min_iou 0.5).
        box_loss_average (str | None): 'paper' averages the box loss over the positives, as the
            paper's LAD does; 'head' leaves it as the head has it (PAA weights by the student's
            IoU). None: 'paper' for PAA, 'head' for other heads, which know no other.
        dynamic_from_start (bool): TOOD assigns statically in its first epochs, because predictions
            mean little then. A teacher is trained, so by default its dynamic assignment and the
            losses that belong to it are used from the first step on. False: TOOD's own schedule;
            there is nothing to distil in those epochs.
        copy_quality (bool): copy the teacher's soft targets and weights with its positives. See
            :func:`kd_det.assignment.replay.replay` for the danger.
        hints (list[dict]): see :class:`kd_det.hints.Hint`.
        **student: the student's own arguments.

    Raises:
        ConfigError: a head without dynamic assignment or of another geometry than the teacher's;
            unknown values.

    Source: Nguyen et al., "Improving Object Detection by Label Assignment Distillation", WACV 2022.
    """

    distill_keys = ('teacher', 'lad', 'soft_label', 'box_loss_average', 'dynamic_from_start',
                    'copy_quality', 'hints')
    deployed_type = 'SingleStageDetector'

    def __init__(self, *args: Any, teacher: dict, lad: bool = True, soft_label: dict | None = None,
                 box_loss_average: str | None = None, dynamic_from_start: bool = True,
                 copy_quality: bool = False, hints: list[dict] | tuple = (), **student: Any) -> None:
        super().__init__(*args, **student)
        self.init_distillation(teacher, hints)
        self.lad, self.copy_quality = bool(lad), bool(copy_quality)
        head, theirs = self.bbox_head, getattr(self.teacher.model, 'bbox_head', None)
        if theirs is None:
            raise ConfigError(f'teacher.config: {type(self.teacher.model).__name__} has no bbox_head; '
                              'LADDistiller needs a single-stage detector')
        if self.lad:
            self._check_pair(head, theirs)
        self.box_loss_average = self._checked_average(box_loss_average)
        if self.lad and dynamic_from_start and getattr(head, 'initial_epoch', 0):
            head.initial_epoch = 0
        if getattr(theirs, 'initial_epoch', 0):
            theirs.initial_epoch = 0  # the teacher's own first epochs are over
        self.soft_label = None
        if soft_label is not None:
            self.soft_label = SoftLabelTerms.build('soft_label', soft_label, head, theirs, beside_lad=True)
        if self.soft_label is not None:
            self.distill_terms += self.soft_label.names

    # -- build ----------------------------------------------------------------------------------
    def _check_pair(self, head: nn.Module, theirs: nn.Module) -> None:
        if self.teacher.scale_factor != 1:
            raise ConfigError(f'teacher.scale_factor: found {self.teacher.scale_factor}; an '
                              'assignment is of one set of priors, so LAD needs 1')
        ours, others = dynamic_assigners(head), None
        try:
            others = dynamic_assigners(theirs)
        except ConfigError as error:
            raise ConfigError(f'teacher.config: {error}') from error
        if isinstance(head, PAAHead) != isinstance(theirs, PAAHead) or list(ours) != list(others):
            raise ConfigError(
                f'teacher.config: {type(theirs).__name__} decides in {list(others) or "paa_reassign"}, '
                f'the student\'s {type(head).__name__} in {list(ours) or "paa_reassign"}; LAD needs '
                'heads that decide alike')
        if head.num_classes != theirs.num_classes:
            raise ConfigError(f'bbox_head.num_classes: {head.num_classes}, the teacher has '
                              f'{theirs.num_classes}')
        check_same_priors(head, theirs)

    def _checked_average(self, value: str | None) -> str:
        paa = self.lad and isinstance(self.bbox_head, PAAHead)
        if value not in (None, 'paper', 'head'):
            raise ConfigError(f'box_loss_average: found {value!r}; \'paper\' or \'head\' is expected')
        if value == 'paper' and not paa:
            raise ConfigError(f'box_loss_average=\'paper\' is for PAA with lad=True; '
                              f'{type(self.bbox_head).__name__}\'s box loss keeps its own weights, '
                              'which hold it together')
        return value or ('paper' if paa else 'head')

    def _probe(self, student_image: Tensor, teacher_image: Tensor) -> None:
        for model, image in ((self, student_image), (self.teacher.model, teacher_image)):
            features = model.extract_feat(image)
            with training_format(model.bbox_head):
                model.bbox_head(features)

    # -- the step -------------------------------------------------------------------------------
    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """The student's own losses under the teacher's assignment, and ``distill_terms``.

        Args:
            batch_inputs: (N, 3, H, W).
            batch_data_samples: N samples with ``gt_instances``, boxes xyxy in the padded,
                augmented image.

        Raises:
            AssignmentMismatch: teacher and student see other priors or ground truths.
        """
        assigns = self.lad and not decides_statically_now(self.bbox_head)
        if not (assigns or self.soft_label is not None or len(self.adapters)):
            return super().loss(batch_inputs, batch_data_samples)
        with torch.no_grad(), self.tap_hints(self.teacher.model, 'teacher_layer') as hints:
            assignments, taught = self._ask_teacher(batch_inputs, batch_data_samples, assigns)
        outputs: list[tuple] = []
        with ExitStack() as stack:
            guided = stack.enter_context(self.tap_hints(self, 'layer'))
            if self.soft_label is not None:
                stack.enter_context(tap_layer(self.bbox_head, outputs))
            if assigns:
                stack.enter_context(replay(self.bbox_head, assignments, self.copy_quality))
                if self.box_loss_average == 'paper':
                    stack.enter_context(average_over_positives(self.bbox_head.loss_bbox))
            losses = super().loss(batch_inputs, batch_data_samples)
        if self.soft_label is not None:
            losses.update(self.soft_label(self.bbox_head, outputs[0], self.teacher.model.bbox_head, taught,
                                          batch_data_samples))
        losses.update(self.hint_losses(guided, hints))
        return losses

    def _ask_teacher(self, inputs: Tensor, samples: list,
                     assigns: bool) -> tuple[Assignments | None, tuple | None]:
        """The teacher's decisions on the batch and its head's outputs, as far as they are needed."""
        model = self.teacher.model
        features = model.extract_feat(self.teacher.prepare(inputs, samples))
        head, outputs = model.bbox_head, []
        count = decisions_of_batch(head, [len(s.gt_instances) for s in samples]) if assigns else 0
        with training_format(head), tap_layer(head, outputs):
            if not assigns or count == 0:  # only what the head predicts is asked for, or nothing
                if self.soft_label is not None or self.hints_below('bbox_head'):
                    head(features)
                return Assignments(type(head).__name__), outputs[0] if outputs else None
            with record(head, stop_after=count) as assignments:
                head.loss(features, samples)
        return assignments, outputs[0]

    def plan(self) -> list[str]:
        lines = super().plan()
        head = type(self.bbox_head).__name__
        if self.lad:
            where = ', '.join(dynamic_assigners(self.bbox_head)) or 'paa_reassign'
            quality = 'the teacher\'s (copy_quality)' if self.copy_quality else 'the student\'s own'
            lines.append(f'assignment: the teacher\'s, at {head}.{where}; quality of positives: {quality}'
                         f'; box loss averaged as in the {self.box_loss_average}')
            if type(self.teacher.model.bbox_head) is PAAHead:
                lines.append('    the teacher fits its mixtures one by one; teacher.cfg_options='
                             '{\'model.bbox_head.type\': \'BatchedPAAHead\'} fits them all at once')
            if getattr(self.bbox_head, 'initial_epoch', 0) > 0:
                lines.append(f'    not in the first {self.bbox_head.initial_epoch} epochs, where {head} assigns '
                             'statically (dynamic_from_start=False)')
        else:
            lines.append(f'assignment: {head}\'s own (lad=False)')
        if self.soft_label is not None:
            lines += self.soft_label.describe()
        if not self.lad and not self.distill_terms:
            lines.append('NOTHING IS DISTILLED: every term is off or has weight 0')
        return lines


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
