"""Which dense heads decide by their predictions, where they decide, and what else they take from predictions.

What an assignment holds besides the positive set, and who supplies it when it is replayed:

=================  =====================  ======================================  ==========  =============
head               decides in             predictions also enter as               supplied by  copy_quality
=================  =====================  ======================================  ==========  =============
PAA                ``paa_reassign``       IoU target and box weight, computed     student     no effect
                                          in the loss
DDOD               ``cls_assigner``,      IoU target, computed in the loss;       student     no effect
                   then ``reg_assigner``  ``max_overlaps`` (IoU), unused
RTMDet             ``assigner``           ``max_overlaps``: IoU as soft class     student     teacher
                                          target and as box weight
YOLOX              ``assigner``           ``max_overlaps``: IoU as class target   student     teacher
TOOD               ``alignment_assigner`` ``assign_metrics`` = s^alpha IoU^beta,  student     teacher
                                          scaled by the best ``max_overlaps`` of
                                          the object: class target, box weight
=================  =====================  ======================================  ==========  =============

The teacher says WHICH priors serve which object; how good they are is the student's own. Copying
the teacher's quality makes the student claim an IoU that it does not have, and takes away the weight
that keeps inverted boxes out of RTMDet's loss, which diverged by it.
"""
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmdet.models.dense_heads import (
    AutoAssignHead,
    DDODHead,
    DETRHead,
    FCOSHead,
    FreeAnchorRetinaHead,
    LADHead,
    PAAHead,
    YOLOFHead,
    YOLOXHead,
)
from mmdet.models.task_modules.assigners import (
    ATSSAssigner,
    BaseAssigner,
    DynamicSoftLabelAssigner,
    HungarianAssigner,
    SimOTAAssigner,
    TaskAlignedAssigner,
    TopkHungarianAssigner,
    UniformAssigner,
)
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..errors import ConfigError

NOT_FOUND = -100_000_000.0  # what the assigners write as the overlap of a prior without an object

REFUSED: tuple[tuple[type, str], ...] = (
    (DETRHead, 'query i means different things in two models, so a matching of one means nothing '
               'to the other'),
    (YOLOFHead, 'its assignment carries the boxes that the head predicted, which the loss '
                'differentiates; another model\'s would cut the student\'s gradient'),
    (LADHead, 'it takes assignments in a way of its own; type=\'PAAHead\' has the same weights'),
    (AutoAssignHead, 'it has no assigner: it weighs all priors inside a box, within its loss'),
    (FreeAnchorRetinaHead, 'it has no hard assignment: its loss is over bags of anchors'),
)
"""Heads whose decisions cannot be handed over, with the reason; the first match counts."""

REFUSED_ASSIGNERS: tuple[tuple[type, str], ...] = (
    ((HungarianAssigner, TopkHungarianAssigner), REFUSED[0][1]),
    (UniformAssigner, REFUSED[1][1]),
)


def _box_quality(assigner: BaseAssigner, call: dict[str, Any], gt_inds: Tensor) -> dict[str, Tensor]:
    """max_overlaps (P,): the IoU of each positive's predicted box with its object."""
    predicted, gts = call['pred_instances'], call['gt_instances']
    if len(gts) == 0:
        return dict(max_overlaps=gt_inds.new_zeros(len(gt_inds), dtype=torch.float32))
    positive = (gt_inds > 0).nonzero().flatten()  # (p,); a mask would make the host wait at each use
    overlaps = assigner.iou_calculator(predicted.bboxes[positive].detach(), gts.bboxes)  # (p, G)
    own = overlaps.gather(1, gt_inds[positive, None] - 1).squeeze(1)  # (p,)
    quality = own.new_full((len(gt_inds),), NOT_FOUND)
    quality[positive] = own
    return dict(max_overlaps=quality)


def _aligned_quality(assigner: BaseAssigner, call: dict[str, Any], gt_inds: Tensor) -> dict[str, Tensor]:
    """max_overlaps, and assign_metrics (P,) = score^alpha * IoU^beta at positives, else 0."""
    quality = _box_quality(assigner, call, gt_inds)
    positive = (gt_inds > 0).nonzero().flatten()  # (p,)
    metrics = torch.zeros_like(quality['max_overlaps'])
    if len(call['gt_instances']):
        labels = call['gt_instances'].labels[gt_inds[positive] - 1]  # (p,)
        scores = call['pred_instances'].scores[positive].detach().gather(1, labels[:, None])[:, 0]
        metric = scores**call['alpha'] * quality['max_overlaps'][positive]**call['beta']
        metrics[positive] = metric.to(metrics)
    return dict(quality, assign_metrics=metrics)


Quality = Callable[[BaseAssigner, dict[str, Any], Tensor], dict[str, Tensor]]
QUALITY: dict[type, Quality] = {
    DynamicSoftLabelAssigner: _box_quality,
    SimOTAAssigner: _box_quality,
    TaskAlignedAssigner: _aligned_quality,
    ATSSAssigner: _box_quality,
}
"""Per assigner class, how the student judges the teacher's positives. Register your own assigner here."""


def quality_of(assigner: BaseAssigner) -> Quality | None:
    """How ``assigner``'s positives are judged; None when it looks at no prediction."""
    if isinstance(assigner, ATSSAssigner) and assigner.alpha is None:
        return None
    return next((fn for cls, fn in QUALITY.items() if isinstance(assigner, cls)), None)


def dynamic_assigners(head: nn.Module) -> dict[str, BaseAssigner]:
    """The assigners of ``head`` that look at predictions, by attribute, each once; empty for PAA.

    Raises:
        ConfigError: the head's decisions cannot be handed over, or it has no dynamic ones; says why.
    """
    name = type(head).__name__
    for cls, reason in REFUSED:
        if isinstance(head, cls):
            raise ConfigError(f'bbox_head: LAD is not possible with {name}: {reason}. '
                              + _offer(head))
    assigners: dict[str, BaseAssigner] = {}
    for attribute, value in vars(head).items():
        if isinstance(value, BaseAssigner) and all(value is not known for known in assigners.values()):
            assigners[attribute] = value
    for attribute, assigner in assigners.items():
        for classes, reason in REFUSED_ASSIGNERS:
            if isinstance(assigner, classes):
                raise ConfigError(f'bbox_head: LAD is not possible with {name}.{attribute}='
                                  f'{type(assigner).__name__}: {reason}. ' + _offer(head))
    if not assigners and isinstance(head, FCOSHead):
        raise ConfigError(f'bbox_head: nothing to distil by LAD in {name}: it assigns points by position and '
                          'size alone, without an assigner, alike in teacher and student. ' + _offer(head))
    if not assigners:
        raise ConfigError(f'bbox_head: {name} has no assigner; its config needs train_cfg.assigner '
                          '(a model without train_cfg can only predict)')
    if isinstance(head, PAAHead):
        return {}
    dynamic = {key: value for key, value in assigners.items() if quality_of(value) is not None}
    if not dynamic:
        raise ConfigError(
            f'bbox_head: nothing to distil by LAD in {name}: '
            f'{", ".join(sorted({type(a).__name__ for a in assigners.values()}))} looks only at priors and '
            'ground truths, so teacher and student assign alike. ' + _offer(head)
            + 'An assigner of your own that looks at predictions is added to '
              'kd_det.assignment.dynamic.QUALITY')
    return dynamic


def _offer(head: nn.Module) -> str:
    if isinstance(head, DETRHead):
        return ''
    return 'SoftLabelDistiller distils what such a head predicts. '


def decisions_of_batch(head: nn.Module, counts: list[int]) -> int | None:
    """How many decisions ``head`` makes for images with ``counts`` ground truths; None: unknown.

    Known for MMDetection's heads, so that a teacher can stop when the last one is made.
    """
    if isinstance(head, YOLOXHead):
        return sum(count > 0 for count in counts)  # an image without objects is not assigned
    if isinstance(head, DDODHead):
        return 2 * len(counts)
    if type(head).__module__.startswith(('mmdet.', 'kd_det.')):
        return len(counts)
    return None


def decides_statically_now(head: nn.Module) -> bool:
    """TOOD's first ``initial_epoch`` epochs: the static assigner decides, in every model alike."""
    if not hasattr(head, 'initial_epoch') or head.initial_epoch <= 0:
        return False
    from mmengine.logging import MessageHub
    return (MessageHub.get_current_instance().get_info('epoch') or 0) < head.initial_epoch


def boxes_and_labels(instances: Any) -> Iterator[Tensor]:
    """Copies of the tensors that say which ground truths these are."""
    yield get_box_tensor(instances.bboxes).clone()  # (G, 4)
    yield instances.labels.clone()  # (G,)
