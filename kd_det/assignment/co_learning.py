"""Two networks, one label assignment: per decision a criterion says whose costs assign for both.

How a head is asked for its costs, and what is made of the costs of two heads:

=======  ====================================================  =======================================
head     candidates of an object, and their costs              what the chosen costs go through
=======  ====================================================  =======================================
PAA      anchors of the first assignment (IoU >= 0.1);         nine per level, one mixture per object,
         focal + 1.3 (1 - GIoU), ``get_pos_loss``              all of the batch in one fit
RTMDet   priors in its box, within ``soft_center_radius``      ``dynamic_k_matching``: the chosen
         strides of its centre, whose cost is finite (if       network's IoUs say how many, a prior
         there is none: without the box, then without the      claimed twice goes to the lower cost
         radius); ``cost_matrix``
=======  ====================================================  =======================================

RTMDet adds 10^(distance in strides - radius) to its costs, alike in both networks. Beyond the radius
it outgrows whatever the networks say, so there a criterion would compare geometry with itself. Priors
of its neighbours have costs too, where both networks' boxes miss the object and the IoU's part is one
constant, -3 log(1e-7); they would drown the others.
"""
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from mmdet.models.dense_heads import DDODHead, PAAHead
from mmdet.models.task_modules.assigners import (
    AssignResult,
    DynamicSoftLabelAssigner,
    SimOTAAssigner,
    TaskAlignedAssigner,
)
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..errors import AssignmentMismatch, ConfigError
from ..heads.batched_paa import BatchedPAAHead, levels_of, reassigned
from .dynamic import dynamic_assigners
from .paa_separation import paa_positives
from .record import Assignments, Call, Decision, intercept, overridden

Criterion = Callable[[Tensor, Tensor, int], Tensor]

REFUSED_ASSIGNERS: tuple[tuple[type, str], ...] = (
    (SimOTAAssigner, 'its costs carry a constant of 1e5 outside the objects\' centres, so std / mean and Fisher would '
                     'say how many candidates lie outside, not how well a network tells them apart'),
    (TaskAlignedAssigner, 'it ranks by score^alpha * IoU^beta, where higher is better and most candidates are near 0; '
                          'any map to costs sets the scale that std / mean and Fisher depend on'),
)
DDOD_REASON = ('it assigns classes and boxes apart, by a metric where higher is better; any map to costs sets the scale '
               'that std / mean and Fisher depend on')


@dataclass
class Shares:
    """What a batch's decisions were: ``first_teaches``, the share (0..1) taken by the first network; ``decisions``."""

    first_teaches: Tensor
    decisions: int


class _AllAsked(Exception):
    """Ends a head's loss when its costs are known."""


def co_learning(heads: tuple[nn.Module, nn.Module], criterion: Criterion,
                granularity: str | None) -> 'PAACoLearning | RTMDetCoLearning':
    """How these two heads learn from one assignment.

    Args:
        heads: the first and the second network's.
        criterion: ``criterion(costs (2, A), cells (A,), num_cells)`` -> mask (num_cells,), first assigns.
        granularity: what one decision is about: 'level' (an object's candidates on one pyramid level), 'object' or
            'image'. None: 'level' for PAA, 'object' for RTMDet.

    Raises:
        ConfigError: heads that do not decide alike, or whose decisions have no costs that can be compared.
    """
    kinds = [_kind(head, key) for head, key in zip(heads, ('bbox_head', 'peer.config: bbox_head'))]
    if kinds[0] is not kinds[1]:
        raise ConfigError(f'peer.config: {type(heads[1]).__name__} assigns otherwise than the first network\'s '
                          f'{type(heads[0]).__name__}; two heads of one kind are needed')
    kind = kinds[0]
    if granularity is not None and granularity not in kind.granularities:
        raise ConfigError(f'granularity: found {granularity!r}; {type(heads[0]).__name__} knows '
                          f'{", ".join(map(repr, kind.granularities))}')
    return kind(heads, criterion, granularity or kind.granularities[0])


def _kind(head: nn.Module, key: str) -> type:
    name = type(head).__name__
    assigners = dynamic_assigners(head)
    if isinstance(head, PAAHead):
        own = type(head)
        if own.paa_reassign not in (PAAHead.paa_reassign, BatchedPAAHead.paa_reassign) \
                or own.gmm_separation_scheme is not PAAHead.gmm_separation_scheme:
            raise ConfigError(f'{key}: {name} separates positives in a way of its own, which CoLAD would not use; '
                              'BatchedPAAHead, PAAHead or COPHead is expected')
        if head.covariance_type == 'tied':
            raise ConfigError(f'{key}.covariance_type: found \'tied\'; \'diag\', \'full\' or \'spherical\' (one model in '
                              'one dimension) is expected')
        return PAACoLearning
    if isinstance(head, DDODHead):
        raise ConfigError(f'{key}: CoLAD is not possible with {name}: {DDOD_REASON}. LADDistiller works with it')
    for assigner in assigners.values():
        for cls, reason in REFUSED_ASSIGNERS:
            if isinstance(assigner, cls):
                raise ConfigError(f'{key}: CoLAD is not possible with {name}: {reason}. LADDistiller works with it')
    if len(assigners) == 1 and isinstance(next(iter(assigners.values())), DynamicSoftLabelAssigner):
        return RTMDetCoLearning
    raise ConfigError(f'{key}: CoLAD does not know the costs of {name}; PAAHead, BatchedPAAHead, COPHead and heads with '
                      'DynamicSoftLabelAssigner (RTMDet) are supported')


class _CoLearning:
    granularities: tuple[str, ...]

    def __init__(self, heads: tuple[nn.Module, nn.Module], criterion: Criterion, granularity: str) -> None:
        self.criterion, self.granularity = criterion, granularity
        self._check_alike(*heads)

    @torch.no_grad()
    def ask(self, head: nn.Module, arguments: tuple, num_images: int) -> list[Call]:
        """The decisions, one an image, that ``head.loss_by_feat(*arguments)`` is about to make."""
        calls: list[Call] = []

        def note(call: Call) -> object:
            answer = self._look(call)
            calls.append(call)
            if len(calls) == num_images:
                raise _AllAsked
            return answer

        with intercept(head, note), suppress(_AllAsked):
            head.loss_by_feat(*arguments)
        return calls

    @torch.no_grad()
    def decide(self, first: list[Call], second: list[Call]) -> tuple[Assignments, Shares | None]:
        """One assignment for both networks, and who made it; None where there was nothing to decide.

        Raises:
            AssignmentMismatch: the networks see other priors, ground truths or candidates.
            ValueError: a network's costs are not finite.
        """
        if len(first) != len(second):
            raise AssignmentMismatch(f'the first network decides {len(first)} times, the second {len(second)} times')
        for image, (one, other) in enumerate(zip(first, second)):
            for name, tensor in one.evidence.items():
                theirs = other.evidence[name]
                if tensor.shape != theirs.shape:
                    raise AssignmentMismatch(f'image {image + 1} of the batch: {name}: {tuple(tensor.shape)} in the first '
                                             f'network, {tuple(theirs.shape)} in the second; both need the same prior '
                                             'generator and train_cfg')
        results, shares = self._results(first, second)
        decisions = [Decision(call.source, call.evidence, result) for call, result in zip(first, results)]
        return Assignments('CoLAD', decisions), shares

    def _choose(self, costs: Tensor, cells: Tensor, num_cells: int) -> tuple[Tensor, Shares | None]:
        """Mask (num_cells,), the first network assigns; cells without candidates are no decisions.

        Args:
            costs: (2, A). cells: (A,), in 0..num_cells - 1.
        """
        first = torch.ones(num_cells, dtype=torch.bool, device=cells.device)
        if not len(cells):
            return first, None
        finite = costs.isfinite().all(1)  # (2,)
        if not bool(finite.all()):
            network = 'first' if not bool(finite[0]) else 'second'
            raise ValueError(f'CoLAD: costs of the {network} network are inf or nan: has its training diverged?')
        asked, dense = torch.unique(cells, return_inverse=True)
        chosen = self.criterion(costs, dense, len(asked))
        first[asked] = chosen
        return first, Shares(chosen.float().mean(), len(asked))


class PAACoLearning(_CoLearning):
    """PAA: the criterion sees all candidates, before the nine cheapest per level are taken."""

    granularities = ('level', 'object', 'image')

    @staticmethod
    def _check_alike(head: PAAHead, theirs: PAAHead) -> None:
        if head.topk != theirs.topk:
            raise ConfigError(f'bbox_head.topk: {head.topk} in the first network, {theirs.topk} in the second; one '
                              'assignment has one topk')

    @staticmethod
    def _look(call: Call) -> tuple:
        asked = call.arguments
        return asked['label'], asked['label_weight'], asked['bbox_weight'], 0

    def _results(self, first: list[Call], second: list[Call]) -> tuple[list[tuple], Shares | None]:
        sizes = [len(call.arguments['pos_losses']) for call in first]
        gts = [call.arguments['pos_gt_inds'] for call in first]  # (A_i,) each
        levels = [levels_of(call.arguments['pos_inds'], call.arguments['anchors']) for call in first]
        num_levels = max(len(call.arguments['anchors']) for call in first)
        costs = torch.stack([torch.cat([call.arguments['pos_losses'] for call in calls])
                             for calls in (first, second)])  # (2, A)
        cells, num_cells = self._cells(gts, levels, num_levels)
        teaches, shares = self._choose(costs, cells, num_cells)
        chosen = torch.where(teaches[cells], costs[0], costs[1])  # (A,)
        positives = paa_positives(list(chosen.split(sizes)), gts, levels, num_levels, first[0].owner.topk)
        return [reassigned(positive, asked['label'], asked['label_weight'], asked['bbox_weight'], asked['pos_inds'],
                           call.owner.num_classes)
                for positive, call, asked in ((p, c, c.arguments) for p, c in zip(positives, first))], shares

    def _cells(self, gts: list[Tensor], levels: list[Tensor], num_levels: int) -> tuple[Tensor, int]:
        """The decision (A,) that each candidate belongs to, and how many numbers there are."""
        image = torch.cat([torch.full_like(part, i) for i, part in enumerate(gts)])  # (A,)
        if self.granularity == 'image' or not len(image):
            return image, len(gts)
        gt, level = torch.cat(gts), torch.cat(levels)
        per_image = int(gt.max()) + 1
        cells = image * per_image + gt
        if self.granularity == 'object':
            return cells, len(gts) * per_image
        return cells * num_levels + level, len(gts) * per_image * num_levels


@dataclass
class _Matching:
    """What one network says about V priors inside objects and G objects of an image."""

    costs: Tensor  # (V, G)
    overlaps: Tensor  # (V, G)
    valid: Tensor  # (P,), V of them True


class RTMDetCoLearning(_CoLearning):
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
            raise _AllAsked  # the matching itself is of no interest

        # AssignResult without positives: of an image without objects, or in place of one
        boxes = get_box_tensor(call.arguments['pred_instances'].bboxes)
        empty = AssignResult(len(call.arguments['gt_instances']), boxes.new_zeros(len(boxes), dtype=torch.long),
                             boxes.new_zeros(len(boxes)), labels=boxes.new_full((len(boxes),), -1, dtype=torch.long))
        with overridden(call.owner, dynamic_k_matching=listen), suppress(_AllAsked):
            call.run()
        call.arguments['matching'] = found[0] if found else None
        return empty

    def _results(self, first: list[Call], second: list[Call]) -> tuple[list[AssignResult], Shares | None]:
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
        return results, shares

    @staticmethod
    def _candidates(call: Call) -> Tensor:
        """Mask (V, G): what a criterion compares; the table in this module's docstring says why."""
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
