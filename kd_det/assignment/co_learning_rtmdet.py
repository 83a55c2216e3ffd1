"""Co-learning of RTMDet heads: columns of the cost matrix from the network that decides about the object."""
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..errors import ConfigError
from .agreement import agreement
from .co_learning_step import AllAsked, CoLearningStep, Shares
from .record import Call, overridden


@dataclass
class _Matching:
    """What one network says about V priors inside objects and G objects of an image."""

    costs: Tensor  # (V, G)
    overlaps: Tensor  # (V, G)
    valid: Tensor  # (P,), V of them True


class RTMDetCoLearning(CoLearningStep):
    """RTMDet: a column of the cost matrix comes from the network that the criterion chose for the object."""

    granularities = ('object', 'image')

    @staticmethod
    def _check_alike(head: nn.Module, theirs: nn.Module) -> None:
        one, other = head.assigner, theirs.assigner
        for name in ('topk', 'soft_center_radius', 'iou_weight'):
            if getattr(one, name) != getattr(other, name):
                raise ConfigError(f'train_cfg.assigner.{name}: {getattr(one, name)} in the first network, '
                                  f'{getattr(other, name)} in the second; one assignment has one')

    @staticmethod
    def _look(call: Call) -> AssignResult:
        found: list[_Matching] = []

        def listen(cost: Tensor, pairwise_ious: Tensor, num_gt: int, valid_mask: Tensor) -> None:
            found.append(_Matching(cost, pairwise_ious, valid_mask.clone()))
            raise AllAsked  # the matching itself is of no interest

        # AssignResult without positives: of an image without objects, or in place of one
        boxes = get_box_tensor(call.arguments['pred_instances'].bboxes)
        empty = AssignResult(len(call.arguments['gt_instances']), boxes.new_zeros(len(boxes), dtype=torch.long),
                             boxes.new_zeros(len(boxes)), labels=boxes.new_full((len(boxes),), -1, dtype=torch.long))
        with overridden(call.owner, dynamic_k_matching=listen), suppress(AllAsked):
            call.run()
        call.arguments['matching'] = found[0] if found else None
        return empty

    def _results(self, first: list[Call], second: list[Call],
                 compare: bool) -> tuple[list[AssignResult], Shares | None]:
        costs, cells, offsets, objects = [], [], [], 0
        for image, (one, other) in enumerate(zip(first, second)):
            offsets.append(objects)
            matching, theirs = one.arguments['matching'], other.arguments['matching']
            if matching is None:
                continue
            candidates = self._candidates(one)  # (V, G)
            prior, gt = candidates.nonzero(as_tuple=True)  # (A_i,) each
            costs.append(torch.stack([matching.costs[prior, gt], theirs.costs[prior, gt]]).float())
            cells.append(torch.full_like(gt, image) if self.granularity == 'image' else gt + objects)
            objects += matching.costs.shape[1]
        if not costs:
            return [self._result(call, None) for call in first], None
        num_cells = len(first) if self.granularity == 'image' else objects
        teaches, shares = self._choose(torch.cat(costs, 1), torch.cat(cells), num_cells)
        results = []
        for image, (one, other) in enumerate(zip(first, second)):
            ours, theirs = one.arguments['matching'], other.arguments['matching']
            if ours is None:
                results.append(self._result(one, None))
                continue
            count = ours.costs.shape[1]
            takes = teaches[image].expand(count) if self.granularity == 'image' else \
                teaches[offsets[image]:offsets[image] + count]  # (G,)
            results.append(self._result(one, _Matching(torch.where(takes, ours.costs, theirs.costs),
                                                       torch.where(takes, ours.overlaps, theirs.overlaps), ours.valid)))
        if compare and shares:
            shares = replace(shares, agreement=_agreement(first, second))
        return results, shares

    @staticmethod
    def _candidates(call: Call) -> Tensor:
        """Mask (V, G): what a criterion compares; the table in :mod:`kd_det.assignment.co_learning` says why."""
        matching, gts = call.arguments['matching'], get_box_tensor(call.arguments['gt_instances'].bboxes)
        priors = call.arguments['pred_instances'].priors[matching.valid]  # (V, 4): centre, stride twice
        centres = (gts[:, :2] + gts[:, 2:]) / 2  # (G, 2)
        distance = (priors[:, None, :2] - centres).norm(dim=-1) / priors[:, None, 2]  # (V, G), strides
        # inf where the constant term overflows; nan must be seen by the check of the costs
        finite = ~matching.costs.isinf()
        near = finite & (distance <= call.owner.soft_center_radius)
        x, y = priors[:, None, 0], priors[:, None, 1]  # (V, 1)
        own = near & (x > gts[:, 0]) & (y > gts[:, 1]) & (x < gts[:, 2]) & (y < gts[:, 3])
        return torch.where(own.any(0), own, torch.where(near.any(0), near, finite))

    @staticmethod
    def _result(call: Call, matching: _Matching | None) -> AssignResult:
        """``matching``'s dynamic top-k as an assignment; how good its positives are, each network says itself."""
        priors, gts = len(call.arguments['pred_instances']), call.arguments['gt_instances']
        gt_inds = gts.labels.new_zeros(priors, dtype=torch.long)
        labels = torch.full_like(gt_inds, -1)
        if matching is not None:
            positive = matching.valid.clone()
            _, matched = call.owner.dynamic_k_matching(matching.costs, matching.overlaps, len(gts), positive)
            gt_inds[positive] = matched + 1  # the call leaves only positives in the mask
            labels[positive] = gts.labels[matched].long()
        return AssignResult(len(gts), gt_inds, torch.zeros(priors, device=gt_inds.device), labels=labels)


def _agreement(first: list[Call], second: list[Call]) -> Tensor:
    """How far the assignments agree that either network's matching gives; (4,)."""
    found = []
    for one, other in zip(first, second):
        ours, theirs = one.arguments['matching'], other.arguments['matching']
        if ours is None:
            continue
        owner, (priors, objects) = one.owner, ours.costs.shape
        mine, yours = (_matched(match, owner.topk).flatten() for match in (ours, theirs))  # (V G,)
        places = torch.arange(objects, device=mine.device).repeat(priors)  # (V G,)
        found.append(agreement(mine, yours, places, objects))
    return torch.stack(found).sum(0)


def _matched(matching: _Matching, topk: int) -> Tensor:
    """Mask (V, G) of what ``dynamic_k_matching`` matches, for all objects at once: of each object the k priors of
    lowest cost, k the sum of its ``topk`` largest IoUs, at least 1; a prior that several objects take serves the
    cheapest.
    """
    costs, overlaps = matching.costs, matching.overlaps
    k = overlaps.topk(min(topk, len(overlaps)), dim=0).values.sum(0).int().clamp(min=1)  # (G,)
    rank = costs.sort(dim=0).indices.argsort(dim=0)  # (V, G)
    taken = rank < k
    cheapest = torch.zeros_like(taken).scatter_(1, costs.argmin(1, keepdim=True), True)
    return torch.where(taken.sum(1, keepdim=True) > 1, cheapest, taken)
