"""Probabilistic anchor assignment (PAA) as a function of costs: which anchors serve which object.

Terms: a *candidate* is an anchor that the first, IoU-based assignment gave to a ground truth; its *cost* is its
classification plus box loss. Needs nothing but torch.
"""
import math
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from .gmm import TwoGaussians, fit_two_gaussians


class Candidates(NamedTuple):
    """The candidates that enter the mixtures, one row per ground truth, costs ascending in a row.

    ``costs``: (P, K), inf at padding. ``indices``: (P, K), positions in the flat input, -1 at padding. ``lengths``:
    (P,).
    """

    costs: Tensor
    indices: Tensor
    lengths: Tensor


def lowest_per_level(costs: Tensor, gt_inds: Tensor, levels: Tensor, num_gts: int,
                     num_levels: int, topk: int = 9) -> Candidates:
    """The ``topk`` cheapest candidates of each ground truth on each pyramid level.

    Of candidates with equal cost, the earlier comes first.

    Args:
        costs: (A,), of all candidates, of one image or many.
        gt_inds: (A,), in 0..``num_gts`` - 1, counting through all images.
        levels: (A,), in 0..``num_levels`` - 1.

    Source: Kim and Lee, PAA, ECCV 2020, algorithm 1, lines 7 to 9.
    """
    cells = gt_inds * num_levels + levels  # (A,), one cell per ground truth and level
    order = costs.argsort(stable=True)  # (A,)
    order = order[cells[order].argsort(stable=True)]  # (A,), by cell, then by cost
    cells = cells[order]  # (A,)
    # not bincount, which reads the largest value: (num_gts * num_levels,)
    sizes = cells.new_zeros(num_gts * num_levels).scatter_add_(0, cells, torch.ones_like(cells))
    rank = torch.arange(len(order), device=costs.device) - (sizes.cumsum(0) - sizes)[cells]
    kept = (rank < topk).nonzero().flatten()  # (kept,); a mask would make the host wait at each use
    slots = cells[kept] * topk + rank[kept]
    table = costs.new_full((num_gts * num_levels * topk,), math.inf)
    table[slots] = costs[order[kept]]
    indices = order.new_full(table.shape, -1)
    indices[slots] = order[kept]
    shape = (num_gts, num_levels * topk)
    table, by_cost = table.view(shape).sort(dim=1, stable=True)  # (num_gts, levels * topk)
    indices = indices.view(shape).gather(1, by_cost)
    lengths = sizes.clamp(max=topk).view(num_gts, num_levels).sum(1)  # (num_gts,)
    width = int(lengths.max()) if num_gts else 0
    return Candidates(table[:, :width], indices[:, :width], lengths)


def separate(costs: Tensor, fit: TwoGaussians) -> Tensor:
    """Positive mask (P, K): samples of the low-cost component up to its highest-density one.

    A cost is positive if it is assigned to component 0 and is at most the cost of that component's sample with the
    highest mixture density. So equal costs share their fate (PAA cuts a list at a position, and where among equals it
    cuts is left to ``topk``), and order plays no part. A problem with fewer than two costs has no positives, as in PAA,
    and so has an empty component 0.

    Args:
        costs: (P, K), as they were fitted; padding of any value.

    Source: Kim and Lee, PAA, ECCV 2020, fig. 3 (c).
    """
    low = (fit.assignment == 0) & (fit.iterations > 0)[:, None]  # (P, K)
    if not low.numel():
        return low
    scores = fit.scores.masked_fill(~low, -math.inf)  # (P, K)
    at_peak = low & (scores == scores.amax(1, keepdim=True))  # (P, K)
    peak = costs.masked_fill(~at_peak, math.inf).amin(1, keepdim=True)  # (P, 1), inf if none
    return low & (costs <= peak)


def paa_positives(costs: list[Tensor], gt_inds: list[Tensor], levels: list[Tensor],
                  num_levels: int, topk: int = 9) -> list[Tensor]:
    """PAA for all ground truths of all images in one fit: which candidates become positives.

    Args:
        costs: per image (A_i,), cost of each candidate; A_i may be 0.
        gt_inds: per image (A_i,), its ground truth.
        levels: per image (A_i,), its pyramid level.
        num_levels: pyramid levels.
        topk: candidates per ground truth and level that enter the mixture.

    Returns:
        Per image a (A_i,) mask. Candidates outside it are background.

    Raises:
        ValueError: a cost is not finite.
    """
    sizes = [len(image) for image in costs]
    if not sum(sizes):
        return [image.new_zeros(0, dtype=torch.bool) for image in costs]
    flat_costs, flat_gts, flat_levels = torch.cat(costs), torch.cat(gt_inds), torch.cat(levels)
    image = torch.repeat_interleave(
        torch.arange(len(sizes), device=flat_gts.device),
        torch.tensor(sizes, device=flat_gts.device), output_size=len(flat_gts))  # (A,)
    per_image = int(flat_gts.max()) + 1
    groups = image * per_image + flat_gts  # (A,), ground truths through all images
    candidates = lowest_per_level(flat_costs, groups, flat_levels, len(sizes) * per_image,
                                  num_levels, topk)
    fitted = (candidates.lengths > 1).nonzero().flatten()  # (P,), the others have no positives
    table, indices, lengths = (part[fitted] for part in candidates)  # (P, K), (P, K), (P,)
    chosen = separate(table, fit_two_gaussians(table, lengths))  # (P, K)
    positive = torch.zeros_like(flat_gts, dtype=torch.bool)  # (A,)
    positive[indices[chosen]] = True
    return list(positive.split(sizes))


def levels_of(anchor_inds: Tensor, anchors: list[Tensor]) -> Tensor:
    """Pyramid level (A,) of anchors given by their places among the anchors of all levels."""
    ends = list(accumulate(len(level) for level in anchors))
    return torch.bucketize(anchor_inds, anchor_inds.new_tensor(ends), right=True)


def reassigned(positive: Tensor, label: Tensor, label_weight: Tensor, bbox_weight: Tensor, pos_inds: Tensor,
               num_classes: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """What ``PAAHead.paa_reassign`` returns for an image whose positives are known.

    Args:
        positive: (A,), mask over the image's candidates.
        label, label_weight, bbox_weight: of all anchors, from the first assignment; not changed.
        pos_inds: (A,), the candidates' places among all anchors.
    """
    background = pos_inds[~positive]
    label, bbox_weight = label.clone(), bbox_weight.clone()
    label[background] = num_classes
    bbox_weight[background] = 0
    return label, label_weight.clone(), bbox_weight, len(pos_inds) - len(background)
