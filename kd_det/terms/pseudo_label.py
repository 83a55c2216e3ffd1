"""The teacher's detections as objects of the student's own loss, for a teacher of any kind."""
from contextlib import nullcontext
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..arguments import fraction, non_negative
from ..build import checked
from ..errors import ConfigError
from ..heads.dense_outputs import decoder_of
from ..heads.score_weights import can_be_weighed, weighed_by_score
from ..sources.recorded_boxes import ASK as BOXES
from .assignment import decides_from_outputs
from .compared import build_loss, is_off
from .dense import dense_head, hear_dense, known_classes, student_outputs, uses_sigmoid
from .step import Step, UnlabelledStep
from .term import Term

SAME = 0.5
"""IoU from which on a detection of an object's class has found it."""
LOOKED_AT = 50
"""Steps in which the teacher must find something."""


class PseudoLabel(Term):
    """A dense student learns from any detector's final boxes, two-stage ones and transformers too::

        D = {(b_j, c_j, s_j)}: the teacher's detections of an image after its NMS with s_j >= score_thr,
            and, where there is ground truth, every object that none of them finds (same class, IoU >= 0.5), with s = 1
        L = weight * sum of the losses of the student's own head with D as its objects
        label and box weight of prior i  *=  s_g(i)^power          g(i): what the head's own assigner gives prior i

    With ``soft`` also the class distribution p_j of each detection, as soft labels where the student sees it::

        m_i    = max_j IoU(student's box i, b_j),  j(i) the maximum's        S = {i : m_i > 0.5},  v_i = m_i s_j(i)
        L_soft = w / Z * sum over S of v_i FocalKL(student's classes i, p_j(i))      Z = sum of v (mean over ranks; at
                                                                                     least N images)

    It needs no priors of the teacher's that stand where the student's do, which is what soft labels, BCKD and LAD
    compare. What it teaches is coarser for it: objects, not scores at every prior. Objects that the teacher misses are
    added because they would count as background.

    ``pseudo_labels`` in the log is the number of detections that count, per image.

    The teacher may be recorded (``teacher.record``): D are then its boxes of the whole image, carried through whatever
    geometric augmentation is drawn (:mod:`kd_det.sources.recorded_boxes`), at a fraction of the cost.

    On images without labels D is the teacher's detections alone: pseudo-labels that are made in the step, on the
    augmented image (``kd-det pseudo-label`` makes them beforehand, once).

    Args:
        weight (float): of the sum. 0: off.
        score_thr (float): below it a detection is not taken.
        power (float | None): of the score. None: 1 for the heads that
            :func:`kd_det.heads.score_weights.weighed_by_score` reaches, and 0, which counts every detection alike, for
            the others.
        soft (dict | None): the loss on class distributions, ``FocalKLLoss`` of weight 2; ``dict()`` takes the default.
            None or weight 0: off.
        **term: see :class:`kd_det.terms.term.Term`.

    Raises:
        ConfigError: no dense head, one whose loss needs more than its outputs, other classes than the teacher's; a
            power that the head cannot use; a teacher of sigmoids for a softmax head; in training, a teacher whose
            boxes' distributions are not known, and one that finds nothing in 50 steps.

    Source: pseudo-labels as in Sohn et al. 2020 (STAC, arXiv 2005.04757), made by a frozen teacher in every step; the
    weight by score, the objects that the teacher misses and the soft labels of final boxes are ours; their form is that
    of :class:`kd_det.terms.soft_label.SoftLabel` with the roles of boxes exchanged.
    """

    compares_classes = True

    def __init__(self, weight: float = 1.0, score_thr: float = 0.5, power: float | None = None,
                 soft: dict | None = None, **term: Any) -> None:
        super().__init__(**term)
        if soft is not None and not isinstance(soft, dict):
            raise ConfigError(f'{self.key}.soft: found {soft!r}; a dict is expected, or None')
        self._soft_cfg, self.soft = soft, None
        self.weight = float(checked(f'{self.key}.weight', non_negative, weight))
        self.score_thr = checked(f'{self.key}.score_thr', fraction, score_thr)
        self.power = None if power is None else float(checked(f'{self.key}.power', non_negative, power))
        self._left = LOOKED_AT

    @property
    def off(self) -> bool:
        return self.weight == 0 and is_off(self._soft_cfg)

    # -- before training --------------------------------------------------------------------------------------------
    def check(self, student: nn.Module, source: Any) -> None:
        head = dense_head(student, 'model')
        if not decides_from_outputs(head):
            raise ConfigError(f'{self.key}: the loss of {type(head).__name__} needs more than its outputs, so that it '
                              'cannot be asked again about other objects')
        theirs = classes_of_head(source.model)
        if theirs is not None and known_classes(source, head.num_classes) != theirs:
            raise ConfigError(f'{self.key}: the student scores {head.num_classes} classes, the teacher {theirs}; '
                              'bbox_head.num_classes must agree')
        weighable = can_be_weighed(head)
        if self.power and not weighable:
            raise ConfigError(f'{self.key}.power: found {self.power:g}, and which object {type(head).__name__} gives a '
                              'prior is not known outside of it; leave it out, every detection then counts alike')
        self.power = float(weighable) if self.power is None else self.power
        self._head = type(head).__name__
        if not is_off(self._soft_cfg):
            self._check_soft(head, source)

    def _check_soft(self, head: nn.Module, source: Any) -> None:
        decoder_of(head, 'bbox_head')
        self._sigmoid, self._theirs = uses_sigmoid(head), sigmoid_of_detector(source.model)
        if self._theirs and not self._sigmoid:
            raise ConfigError(f'{self.key}.soft: the student\'s {type(head).__name__} scores with a softmax, the '
                              'teacher with a sigmoid for each class, which say nothing of the background; soft=None')
        self.soft = build_loss(f'{self.key}.soft', self._soft_cfg, dict(
            type='FocalKLLoss', use_sigmoid=self._sigmoid, loss_weight=2.0), 'scores')

    def asks(self) -> tuple[str, ...]:
        return (BOXES,)

    def names(self) -> list[str]:
        parts = (('loss_pseudo_label', self.weight > 0), ('loss_pseudo_soft', not is_off(self._soft_cfg)))
        return [name + self.suffix for name, on in parts if on]

    def describe(self) -> list[str]:
        schedule = self.schedule.describe()
        counts = f'by its score^{self.power:g}' if self.power else 'alike'
        return [f'pseudo-labels <- {self.source}: its detections of score {self.score_thr:g} and over are objects of '
                f'{self._head}\'s own loss, weight {self.weight:g}, each counts {counts}'
                + (f', {schedule}' if schedule else '')] + (
            [] if self.soft is None else
            [f'    their class distributions are soft labels, {type(self.soft).__name__} ({self.soft.extra_repr()})'])

    # -- the step ---------------------------------------------------------------------------------------------------
    def around(self, step: Step) -> None:
        hear_dense(step)

    def losses(self, step: Step) -> dict[str, Tensor]:
        return self._taught(step, [sample.gt_instances for sample in step.samples])

    def unlabelled_losses(self, step: UnlabelledStep) -> dict[str, Tensor]:
        return self._taught(step, [None] * len(step.samples))

    def _taught(self, step: Step, truths: list) -> dict[str, Tensor]:
        source = step.source(self.source)
        found = [confident(image, self.score_thr, source.scale) for image in source.detections()]
        self._look(sum(len(image) for image in found))
        count = found[0].bboxes.new_tensor(sum(len(image) for image in found) / len(found))
        losses = {f'pseudo_labels{self.suffix}': count}
        if self.weight > 0:
            losses[f'loss_pseudo_label{self.suffix}'] = self.weight * self._own_loss(step, found, truths)
        if self.soft is not None:
            distributions = [rows[image.scores >= self.score_thr] for image, rows in zip(
                source.detections(), source.distributions(), strict=True)]
            losses[f'loss_pseudo_soft{self.suffix}'] = self._soft_loss(step, found, distributions)
        return losses

    def _own_loss(self, step: Step, found: list[InstanceData], truths: list) -> Tensor:
        """The student's own loss about the detections."""
        head = step.student.bbox_head
        objects = [image if truth is None else with_missed(image, truth) for image, truth in zip(found, truths)]
        with weighed_by_score(step.student, self.power) if self.power else nullcontext():
            own = head.loss_by_feat(*step.dense(), batch_gt_instances=objects,
                                    batch_img_metas=[sample.metainfo for sample in step.samples],
                                    batch_gt_instances_ignore=None)
        return sum(torch.stack(list(value)).sum() if isinstance(value, (list, tuple)) else value
                   for name, value in own.items() if 'loss' in name)

    def _soft_loss(self, step: Step, found: list[InstanceData], distributions: list[Tensor]) -> Tensor:
        """The detections' class distributions where the student puts boxes on them."""
        outputs = student_outputs(step)
        ours, soft, weights = [], [], []
        for i, (image, rows) in enumerate(zip(found, distributions, strict=True)):
            if not len(image):
                continue
            with torch.no_grad():
                overlap, which = bbox_overlaps(outputs.boxes(i).float(), image.bboxes).max(1)  # (P,)
                places = (overlap > SAME).nonzero().flatten()  # (s,)
                which = which[places]
                weights.append(overlap[places] * image.scores[which])
                soft.append(as_logits(rows[which], self._theirs, self._sigmoid))  # (s, K)
            ours.append(outputs.logits[i, places])
        if not ours:
            ours, soft, weights = [outputs.logits[0, :0]], [outputs.logits[0, :0].detach()], [outputs.logits[0, :0, 0]]
        weight = torch.cat(weights).detach()
        normaliser = reduce_mean(weight.sum().float()).clamp(min=len(found))  # Z
        return self.soft(torch.cat(ours), torch.cat(soft), weight=weight, avg_factor=normaliser)

    def _look(self, count: int) -> None:
        """A teacher that finds nothing teaches that everything is background."""
        if self._left == 0:
            return
        self._left = 0 if count else self._left - 1
        if not count and self._left == 0:
            raise ConfigError(f'{self.key}.score_thr: the {self.source} has found nothing with a score of '
                              f'{self.score_thr:g} in {LOOKED_AT} steps; lower it, or look at what it detects '
                              '(kd-det test, kd-det visualize)')


def classes_of_head(model: nn.Module) -> int | None:
    """How many classes a detector's last head scores; None: it does not say."""
    head = getattr(model, 'bbox_head', None)
    if head is None and getattr(model, 'roi_head', None) is not None:
        head = model.roi_head.bbox_head
        head = head[-1] if isinstance(head, nn.ModuleList) else head
    return getattr(head, 'num_classes', None)


def sigmoid_of_detector(model: nn.Module) -> bool:
    """Whether a detector's last head scores each class with a sigmoid of its own."""
    if getattr(model, 'roi_head', None) is not None:
        return False
    head = model.bbox_head
    known = getattr(head, 'use_sigmoid_cls', None)
    return bool(getattr(head.loss_cls, 'use_sigmoid', True)) if known is None else bool(known)


def as_logits(probabilities: Tensor, theirs: bool, ours: bool) -> Tensor:
    """Logits of a student's kind with a teacher's probabilities (n, K), kept 1e-6 away from 0 and 1.

    A softmax (K = C + 1) teaches sigmoids by its first C probabilities: how likely the box shows class c.

    Args:
        theirs, ours: whether teacher and student score with sigmoids.
    """
    probabilities = probabilities.float().clamp(1e-6, 1 - 1e-6)
    if not ours:
        return probabilities.log()
    return (probabilities if theirs else probabilities[:, :-1]).logit()


def confident(found: InstanceData, score_thr: float, scale: int) -> InstanceData:
    """The detections that count, in the student's pixels; the teacher's are ``scale`` times as many a side."""
    kept = found[found.scores >= score_thr]
    return InstanceData(bboxes=get_box_tensor(kept.bboxes).float() / scale, labels=kept.labels,
                        scores=kept.scores.float())


def with_missed(found: InstanceData, truth: InstanceData) -> InstanceData:
    """Detections, and the objects that none of their class overlaps by :data:`SAME`, of score 1."""
    boxes = get_box_tensor(truth.bboxes).float()
    overlaps = bbox_overlaps(boxes, found.bboxes)                                     # (G, D)
    same = truth.labels[:, None] == found.labels                                      # (G, D)
    missed = ~((overlaps >= SAME) & same).any(1)                                      # (G,)
    return InstanceData(bboxes=torch.cat([found.bboxes, boxes[missed]]),
                        labels=torch.cat([found.labels, truth.labels[missed]]),
                        scores=torch.cat([found.scores, boxes.new_ones(int(missed.sum()))]))
