"""Co-learning of PAA heads: nine candidates per level, one mixture per object, the costs of the network that decides.
"""
from dataclasses import replace

import torch
from mmdet.models.dense_heads import PAAHead
from torch import Tensor

from ..errors import ConfigError
from .agreement import agreement
from .co_learning_step import CoLearningStep, Shares
from .paa_separation import levels_of, paa_positives, reassigned
from .record import Call


class PAACoLearning(CoLearningStep):
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

    def _results(self, first: list[Call], second: list[Call], compare: bool) -> tuple[list[tuple], Shares | None]:
        sizes = [len(call.arguments['pos_losses']) for call in first]
        gts = [call.arguments['pos_gt_inds'] for call in first]  # (A_i,) each
        levels = [levels_of(call.arguments['pos_inds'], call.arguments['anchors']) for call in first]
        num_levels = max(len(call.arguments['anchors']) for call in first)
        costs = torch.stack([torch.cat([call.arguments['pos_losses'] for call in calls])
                             for calls in (first, second)])  # (2, A)
        cells, num_cells = self._cells(gts, levels, num_levels)
        teaches, shares = self._choose(costs, cells, num_cells)
        chosen = torch.where(teaches[cells], costs[0], costs[1])  # (A,)
        fitted = [chosen, *costs] if compare and shares else [chosen]  # all of them in one fit
        images = [image for one in fitted for image in one.split(sizes)]
        found = paa_positives(images, gts * len(fitted), levels * len(fitted), num_levels, first[0].owner.topk)
        positives = found[:len(first)]
        if len(fitted) > 1:
            own = (torch.cat(found[k * len(first):(k + 1) * len(first)]) for k in (1, 2))
            shares = replace(shares, agreement=agreement(*own, *_objects(first, gts)))
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


def _objects(calls: list[Call], gts: list[Tensor]) -> tuple[Tensor, int]:
    """The object (A,) of each candidate, counted through the batch, and how many objects there are."""
    counts = [len(call.evidence['ground-truth labels']) for call in calls]
    return torch.cat([gt + sum(counts[:i]) for i, gt in enumerate(gts)]), sum(counts)
