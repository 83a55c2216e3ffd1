"""PAA head that fits the mixtures of all ground truths of all images at once."""
from typing import NamedTuple

import torch
from mmdet.models.dense_heads import PAAHead
from torch import Tensor

from ..assignment.paa_separation import levels_of, paa_positives, reassigned


class _CostSet(NamedTuple):
    """What the first assignment left of one image."""

    costs: Tensor  # (A,), of the image's candidates
    anchor_inds: Tensor  # (A,), the candidates' places among all anchors, ascending
    gt_inds: Tensor  # (A,)
    anchors: list[Tensor]  # per level (n, 4)


class BatchedPAAHead(PAAHead):
    """Drop-in for MMDetection's ``PAAHead``: same arguments, weights, losses and gradients.

    ``PAAHead`` fits one scikit-learn mixture per ground truth on the CPU; here one call on the device fits all of them
    (:mod:`kd_det.assignment.gmm`). Costs serve only to choose positives, so they are computed without a graph. Where
    several candidates of an object have exactly the same cost, PAA's choice among them is arbitrary; here they share
    their fate.

    :meth:`paa_reassign` stays the one place where an image's assignment comes out: it may be replaced or listened to on
    an instance. Images whose candidates are known when it is first called (:meth:`get_pos_loss` has seen them since
    :meth:`get_targets`) are fitted together with the image it is called for; any other call is fitted alone, with the
    same result.

    Args:
        covariance_type: 'diag', 'full' or 'spherical', which are one model in one dimension.
        Everything else is ``PAAHead``'s.

    Raises:
        ValueError: ``covariance_type`` is 'tied' or unknown.
        TypeError: a subclass overrides ``gmm_separation_scheme``, which is never called here.
    """

    def __init__(self, *args, covariance_type: str = 'diag', **kwargs) -> None:
        if covariance_type not in ('diag', 'full', 'spherical'):
            raise ValueError(
                f"{type(self).__name__}: covariance_type={covariance_type!r} is not supported; use "
                "'diag' ('full' and 'spherical' mean the same for one-dimensional costs), or "
                "type='PAAHead'")
        if type(self).gmm_separation_scheme is not PAAHead.gmm_separation_scheme:
            raise TypeError(
                f'{type(self).__name__} overrides gmm_separation_scheme, which BatchedPAAHead does '
                'not call; override paa_reassign, or derive from PAAHead')
        super().__init__(*args, covariance_type=covariance_type, **kwargs)
        self._first_assignment: list[tuple[Tensor, Tensor]] = []
        self._waiting: list[_CostSet] = []
        self._positives: list[tuple[_CostSet, Tensor]] = []

    def loss_by_feat(self, *args, **kwargs) -> dict[str, Tensor]:
        """``PAAHead``'s, and nothing of the batch is kept afterwards."""
        try:
            return super().loss_by_feat(*args, **kwargs)
        finally:
            self._forget()

    def get_targets(self, *args, **kwargs) -> tuple:
        """``PAAHead``'s; begins a batch."""
        self._forget()
        targets = super().get_targets(*args, **kwargs)
        self._first_assignment = list(zip(targets[4], targets[5]))  # anchors, ground truths
        return targets

    @torch.no_grad()
    def get_pos_loss(self, anchors: list[Tensor], cls_score: Tensor, bbox_pred: Tensor,
                     label: Tensor, label_weight: Tensor, bbox_target: Tensor, bbox_weight: Tensor,
                     pos_inds: Tensor) -> tuple[Tensor]:
        """``PAAHead``'s costs (A,) of one image's candidates, noted for the fit of the batch."""
        costs, = super().get_pos_loss(anchors, cls_score, bbox_pred, label, label_weight,
                                      bbox_target, bbox_weight, pos_inds)
        for anchor_inds, gt_inds in self._first_assignment:
            if anchor_inds is pos_inds and len(pos_inds):
                self._waiting.append(_CostSet(costs, anchor_inds, gt_inds, anchors))
        return costs,

    @torch.no_grad()
    def paa_reassign(self, pos_losses: Tensor, label: Tensor, label_weight: Tensor,
                     bbox_weight: Tensor, pos_inds: Tensor, pos_gt_inds: Tensor,
                     anchors: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, int]:
        """One image's labels, label weights and box weights after PAA, and its positive count.

        Arguments and results are those of ``PAAHead.paa_reassign``.
        """
        if not len(pos_inds):
            return label, label_weight, bbox_weight, 0
        positive = self._positives_of(_CostSet(pos_losses, pos_inds, pos_gt_inds, anchors))  # (A,)
        return reassigned(positive, label, label_weight, bbox_weight, pos_inds, self.num_classes)

    def _positives_of(self, image: _CostSet) -> Tensor:
        """Mask (A,) over the image's candidates; fits every image that waits on the first call."""
        if any(_same(image, known) for known in self._waiting):
            batch, self._waiting = self._waiting, []
            self._positives = list(zip(batch, self._fit(batch)))
        for place, (known, positive) in enumerate(self._positives):
            if _same(image, known):
                del self._positives[place]
                return positive
        return self._fit([image])[0]

    def _fit(self, batch: list[_CostSet]) -> list[Tensor]:
        return paa_positives([image.costs for image in batch], [image.gt_inds for image in batch],
                             [levels_of(image.anchor_inds, image.anchors) for image in batch],
                             num_levels=max(len(image.anchors) for image in batch), topk=self.topk)

    def _forget(self) -> None:
        self._first_assignment, self._waiting, self._positives = [], [], []


def _same(image: _CostSet, known: _CostSet) -> bool:
    """Whether these are the same tensors: equal values could belong to another batch."""
    return (image.costs is known.costs and image.anchor_inds is known.anchor_inds
            and image.gt_inds is known.gt_inds)
