"""BCKD: the teacher's scores and boxes at every prior, for heads whose classes are binary problems (Yang et al. 2023).
"""
from typing import Any

import torch
from torch import Tensor, nn

from ..heads.dense_outputs import DenseOutputs
from .dense import check_binary_classes, check_targets, hear_targets, student_outputs, student_targets
from .dense_prediction import DensePrediction
from .seen import expected_positives, priors_inside
from .step import Step, UnlabelledStep


class BCKD(DensePrediction):
    r"""Binary classification and IoU-based distillation over ALL priors of all levels::

        d_ic    = |sigmoid(t_ic) - sigmoid(s_ic)|                   s, t: class logits of prior i, student and teacher
        L_cls   = w_cls / N * sum over i of l_i * sum over c of BCE(s_ic, sigmoid(t_ic)) d_ic^beta
        L_bbox  = w_box / N * sum over i of l_i * max_c d_ic * GIoU-loss(student's box i, teacher's box i)
        L_iou   = w_iou / M * sum over positives of BCE(q_i, sigmoid(teacher's q_i))    q: centerness, IoU or objectness

    N: positives of the student's assigner, averaged over ranks, at least 1. l: label weights of the assigner, 0 outside
    the image and at ignored priors. M: N, of the box branch's assigner where a head has one of its own (DDOD). The
    gradient flows through d in the class part, as in the quality focal loss, and not in the box part. Boxes are
    decoded. A level without positives takes part; so does an image without objects.

    On images without labels N is what the teacher expects, the sum over priors of its largest score (mean over ranks,
    at least 1), and l is 1 at priors whose centre lies in the image. The third part, which is for positives, is left
    out.

    Four images are two and two: L(4) N(4) = L(2) N(2) + L'(2) N'(2), as long as every count is at least 1.

    For RetinaNet, FCOS, ATSS, GFL, PAA, TOOD, DDOD, RTMDet, YOLOX, also of different kinds in student and teacher, if
    their priors stand at the same places. YOLOX's score is class times objectness, as in its prediction
    (:class:`kd_det.heads.dense_outputs.DenseOutputs`).

    Args:
        cls (dict | None): ``ModulatedBCELoss`` with beta 1 and weight 1. None or weight 0: off.
        bbox (dict | None): an IoU loss on decoded boxes, ``GIoULoss`` of weight 4.
        score_factor (dict | None | 'auto'): the branch beside the classes, ``SoftBCELoss`` of weight 1; no part of the
            paper, taken from CrossKD for ATSS. 'auto': where both heads have the same one.
        **term: see :class:`kd_det.terms.term.Term`. An ensemble's scores are its mean probabilities; classes that
            nobody knows take no part.

    Raises:
        ConfigError: heads that cannot be compared or that score with a softmax; ``ground_truth=False``, where nobody
            assigns; unknown keys, with the config key.

    Source: Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection", ICCV
    2023 (arXiv 2308.14286), section 3; constants of its released configurations. There a level without positives is
    left out, which is not repeated.
    """

    tag = 'bckd'

    def defaults(self, use_sigmoid: bool) -> dict[str, dict]:
        return dict(cls=dict(type='ModulatedBCELoss', beta=1.0, loss_weight=1.0),
                    bbox=dict(type='GIoULoss', loss_weight=4.0), score_factor=dict(type='SoftBCELoss', loss_weight=1.0))

    def check(self, student: nn.Module, source: Any) -> None:
        check_binary_classes(self.key, student, source)
        super().check(student, source)
        check_targets(self.key, student)
        self._head = type(student.bbox_head).__name__

    def around(self, step: Step) -> None:
        hear_targets(step)

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, targets, source = student_outputs(step), student_targets(step), step.source(self.source)
        teacher = self.teacher_outputs(student, source)
        cls, bbox = self._dense(student, teacher, source.known, targets.label_weights, targets.normaliser)
        factor = None if self.score_factor is None else self.compare_factors(student, teacher, targets.box)
        return self.named(cls, bbox, factor)

    def unlabelled_losses(self, step: UnlabelledStep) -> dict[str, Tensor]:
        student, source = student_outputs(step), step.source(self.source)
        teacher = self.teacher_outputs(student, source)
        inside = priors_inside(student.priors, step.samples)  # (N, P)
        cls, bbox = self._dense(student, teacher, source.known, inside,
                                expected_positives(teacher, source.known, inside))
        return {name: value for name, value in self.named(cls, bbox, None).items() if value is not None}

    def _dense(self, student: DenseOutputs, teacher: DenseOutputs, known: Tensor | None, weights: Tensor,
               normaliser: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The class and the box part over all priors, whose ``weights`` are (N, P); None: off."""
        cls = bbox = None
        if self.cls is not None:
            cls = self.compare_classes(student.logits, teacher.logits, known, normaliser, weights)
        if self.bbox is not None:
            apart = weights * score_distance(student, teacher, known)  # (N, P)
            bbox = self.compare_boxes(student.all_boxes().flatten(0, 1), teacher.all_boxes().flatten(0, 1),
                                      apart.flatten(), normaliser)
        return cls, bbox

    def describe(self) -> list[str]:
        schedule = self.schedule.describe()
        whole = 'all priors of all levels'
        lines = [f'BCKD <- {self.source}, divided by the positives of {self._head}\'s assigner (mean over ranks, at '
                 'least 1)' + (f', {schedule}' if schedule else '')]
        where = dict(cls=f'classes, {whole}', bbox=f'decoded boxes, {whole}, weighted by the largest score difference')
        for name, loss in self.parts():
            lines.append(f'    {where.get(name, f"{name}, positives")}: {type(loss).__name__} ({_settings(loss)})')
        return lines


@torch.no_grad()
def score_distance(student: DenseOutputs, teacher: DenseOutputs, known: Tensor | None) -> Tensor:
    """max over classes of |sigmoid(t) - sigmoid(s)|, (N, P), of the classes that the source speaks about."""
    found = []
    for ours, theirs in zip(student.logits, teacher.logits):  # image by image: (P, C) is large
        apart = theirs.float().sigmoid().sub_(ours.float().sigmoid()).abs_()
        found.append((apart if known is None else apart[:, known.to(apart.device)]).amax(1))
    return torch.stack(found)


def _settings(loss: nn.Module) -> str:
    """MMDetection's losses say nothing of themselves."""
    return loss.extra_repr() or f'loss_weight={loss.loss_weight}'
