"""Soft labels for dense heads (the baseline of Nguyen et al. 2022, and SoLAD's second part)."""
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ..arguments import boolean, fraction
from ..build import checked
from ..errors import ConfigError
from .dense import student_outputs
from .dense_prediction import DensePrediction
from .schedule import training_progress
from .seen import priors_inside, seen_boxes
from .step import Step, UnlabelledStep


class SoftLabel(DensePrediction):
    """The teacher's dense predictions as targets::

        m_i    = max over ground truths of IoU(teacher's box i, ground truth)
        S      = {i : m_i > min_iou},   Z = sum of m_i over S (mean over ranks; at least N images, which is ours)
        L_cls  = w_cls / Z * sum over all priors and classes of FocalKL(student, teacher)
        L_bbox = w_box / Z * sum over S of m_i * GIoULoss(student's box i, teacher's box i)
        L_iou  = w_iou / Z * sum over S of FocalKL of the centerness or IoU branch

    On images without labels the boxes that the teacher sees (:func:`kd_det.terms.seen.seen_boxes`, from ``seen_from``
    on) stand for the ground truths, and all three parts act; ``anneal`` weakens them there as well.

    For every head that :mod:`kd_det.heads.dense_outputs` can read, static assigners included (RetinaNet, ATSS, GFL,
    FCOS, PAA, DDOD, TOOD, RTMDet, YOLOX).

    Args:
        cls (dict | None): class term, ``FocalKLLoss``; weight 10 alone, 2 beside LAD, gamma 0.5. Its
            ``temperature`` is 1 in the paper. None or weight 0: off.
        bbox (dict | None): a box loss on decoded boxes, ``GIoULoss`` of weight 1.3.
        score_factor (dict | None | 'auto'): the branch beside the classes, ``FocalKLLoss`` of weight
            10. 'auto': where both heads have the same one.
        min_iou (float): 0.5 in the paper's text; its released soft-label run used 0.1.
        seen_from (float): the score from which on the teacher's box stands for an object of an image without labels;
            0.3, which is ours. It decides S and Z there; the class part is over all priors in any case.
        anneal (bool): l = the part of training that is over weighs the student's own losses, 1 - l the soft labels:
            from pure distillation to plain training (Clark et al. 2019, BAM, arXiv 1907.04829). Needs
            ground_truth=True.
        beside_lad (bool): whether the class term's default weight is that of SoLAD.
        **term: see :class:`kd_det.terms.dense_prediction.DensePrediction` and :class:`kd_det.terms.term.Term`.

    Raises:
        ConfigError: heads that cannot be compared, unknown keys, with the config key.

    Source: Nguyen et al. 2022 (arXiv 2108.10520), section on soft labels, and its released code.
    """

    tag = 'distill'
    factor_is_of_positives = False

    def __init__(self, cls: dict | str | None = 'auto', bbox: dict | str | None = 'auto',
                 score_factor: dict | str | None = 'auto', min_iou: float = 0.5, beside_lad: bool = False,
                 anneal: bool = False, seen_from: float = 0.3, **term: Any) -> None:
        super().__init__(cls, bbox, score_factor, **term)
        self.anneal = checked(f'{self.key}.anneal', boolean, anneal)
        self.min_iou, self._beside_lad = checked(f'{self.key}.min_iou', fraction, min_iou), beside_lad
        self.seen_from = checked(f'{self.key}.seen_from', fraction, seen_from)

    def defaults(self, use_sigmoid: bool) -> dict[str, dict]:
        return dict(cls=dict(type='FocalKLLoss', use_sigmoid=use_sigmoid,
                             loss_weight=2.0 if self._beside_lad else 10.0),
                    bbox=dict(type='GIoULoss', loss_weight=1.3),
                    score_factor=dict(type='FocalKLLoss', loss_weight=10.0))

    def check(self, student: nn.Module, source: Any) -> None:
        super().check(student, source)
        if self.anneal and not getattr(student, 'ground_truth', True):
            raise ConfigError(f'{self.key}.anneal: True needs ground_truth=True: training ends with the student\'s own '
                              'losses alone')
        if not getattr(student, 'ground_truth', True):
            self._check_alone(type(student.bbox_head).__name__, self.factor_name)

    def _check_alone(self, head: str, factor: str | None) -> None:
        """Without the student's own losses, whatever prediction uses must be trained by the soft labels."""
        missing = [part for part, loss in (('cls', self.cls), ('bbox', self.bbox)) if loss is None]
        if factor is not None and self.score_factor is None:
            missing.append('score_factor')
        if missing:
            branches = {'cls': 'classes', 'bbox': 'boxes', 'score_factor': factor}
            raise ConfigError(f'{self.key}.{missing[0]}: {head}\'s {" and ".join(branches[part] for part in missing)} '
                              'would never be trained, and prediction uses them: without the student\'s own losses '
                              'every branch needs a soft label, which the teacher must have too. Set '
                              'ground_truth=True, or give the term')

    def adjust(self, step: Step, losses: dict[str, Any], factor: float) -> None:
        if self.anneal:
            weight = 1 - factor * (1 - training_progress())
            for name in [name for name in losses if 'loss' in name and '_distill' not in name]:
                value = losses[name]
                losses[name] = [v * weight for v in value] if isinstance(value, list) else value * weight

    def losses(self, step: Step) -> dict[str, Tensor]:
        known = step.source(self.source).known
        return self._compare(step, [get_box_tensor(_of_known(sample.gt_instances, known).bboxes)
                                    for sample in step.samples])

    def unlabelled_losses(self, step: UnlabelledStep) -> dict[str, Tensor]:
        student, source = student_outputs(step), step.source(self.source)
        teacher = self.teacher_outputs(student, source)
        return self._compare(step, seen_boxes(teacher, source.known, priors_inside(student.priors, step.samples),
                                              self.seen_from))

    def _compare(self, step: Step, objects: list[Tensor]) -> dict[str, Tensor]:
        """The losses, where ``objects`` are the boxes (G, 4) of each image."""
        student, source = student_outputs(step), step.source(self.source)
        teacher = self.teacher_outputs(student, source)
        with torch.no_grad():
            chosen = [self._near_objects(teacher.boxes(i), boxes) for i, boxes in enumerate(objects)]
            overlaps = torch.cat([m for _, _, m in chosen])  # (S,), m_i
            normaliser = reduce_mean(overlaps.sum()).clamp(min=len(step.samples))  # Z
        cls = bbox = factor = None
        if self.cls is not None:
            cls = self.compare_classes(student.logits, teacher.logits, source.known, normaliser)
        if self.bbox is not None:
            boxes = torch.cat([student.boxes(i, index) for i, (index, _, _) in enumerate(chosen)])  # (S, 4)
            bbox = self.compare_boxes(boxes, torch.cat([target for _, target, _ in chosen]), overlaps, normaliser)
        if self.score_factor is not None:
            ours, soft = (torch.cat([side.factor[i, index] for i, (index, _, _) in enumerate(chosen)])
                          for side in (student, teacher))  # (S,)
            factor = self.score_factor(ours, soft, avg_factor=normaliser)
        losses = self.named(cls, bbox, factor)
        return {name: value * (1 - training_progress()) for name, value in losses.items()} if self.anneal else losses

    def _near_objects(self, boxes: Tensor, objects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Priors (s,) whose teacher box overlaps an object enough, these boxes (s, 4), m_i (s,)."""
        if len(objects) == 0:
            return boxes.new_zeros(0, dtype=torch.long), boxes[:0], boxes[:0, 0]
        best = bbox_overlaps(boxes.float(), objects.float()).amax(1)  # (P,)
        index = (best > self.min_iou).nonzero().flatten()
        return index, boxes[index], best[index]

    def describe(self) -> list[str]:
        names = dict(cls='classes', bbox='boxes')
        return [f'soft labels: {names.get(name, name)}, {type(loss).__name__} of weight {loss.loss_weight:g}'
                + ('' if name == 'cls' else f', where the teacher\'s box has IoU > {self.min_iou:g}')
                for name, loss in self.parts()] + [self.schedule.describe()][:not self.schedule.is_constant]


def _of_known(gts: Any, known: Tensor | None) -> Any:
    """The objects of classes that the source speaks about."""
    return gts if known is None or len(gts) == 0 else gts[known.to(gts.labels.device)[gts.labels]]
