"""LD's valuable localisation region: anchors near an object that are not its positives (Zheng et al. 2022)."""
from collections.abc import Iterator

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

PAIRS = 2**22
"""Of anchors and objects that are looked at at once, which bounds the memory: images are taken together up to there."""


def valuable_region(anchors: Tensor, level_sizes: list[int], valid: Tensor, objects: list[Tensor], alpha: float = 0.25,
                    topk: int = 9) -> Tensor:
    """How much each anchor counts in the valuable localisation region of each image::

        t_g  = mean + standard deviation of the IoUs of object g with its candidates, ATSS' threshold
        V_g  = {anchors whose DIoU with g lies in [alpha t_g, t_g)}
        w_i  = max over g with i in V_g of IoU(anchor i, object g);  0 where there is no such g

    Candidates of g are, on each level, the ``topk`` anchors whose centers lie nearest to that of g. The region itself
    is all anchors, those whose center lies outside the object and those that are positive too: DIoU is at most the IoU,
    so that a positive anchor off the center can be below t.

    Args:
        anchors: (P, 4), xyxy in pixels, level after level, of every image.
        level_sizes: anchors per level, which add up to P.
        valid: (N, P) bool; others are neither candidates nor in the region (outside the image, or ignored).
        objects: of each of N images (G, 4), xyxy in pixels; G may be 0.
        alpha: where the region begins, in (0, 1].
        topk: candidates per level.

    Returns:
        (N, P), at least float32: w, in [0, 1). Nothing of it waits for the device.

    Source: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, algorithm 1; alpha and topk
    of the released configurations.
    """
    anchors = anchors.to(torch.promote_types(anchors.dtype, torch.float32))
    regions = [anchors.new_zeros(len(anchors))] * len(objects)
    for images in _groups([len(boxes) for boxes in objects], max(1, PAIRS // max(len(anchors), 1))):
        around = torch.cat([objects[i].to(anchors) for i in images])  # (G, 4), of several images
        fits = torch.cat([valid[i, :, None].expand(-1, len(objects[i])) for i in images], 1)  # (P, G)
        weights = _weights(anchors, level_sizes, fits, around, alpha, topk).split([len(objects[i]) for i in images], 1)
        for i, own in zip(images, weights):
            regions[i] = own.amax(1)
    return torch.stack(regions)


def _groups(counts: list[int], most: int) -> Iterator[list[int]]:
    """Numbers of the images with objects, as many together as have no more than ``most``, but at least one."""
    group: list[int] = []
    for i in (i for i, count in enumerate(counts) if count):
        if group and sum(counts[j] for j in group) + counts[i] > most:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _weights(anchors: Tensor, level_sizes: list[int], valid: Tensor, objects: Tensor, alpha: float,
             topk: int) -> Tensor:
    """IoUs (P, G) of anchors with objects in whose region they lie, 0 elsewhere; ``valid`` is (P, G)."""
    overlaps = bbox_overlaps(anchors, objects)  # (P, G)
    distances = center_distances(anchors, objects)  # (P, G), squared pixels
    threshold = _threshold(overlaps, distances, level_sizes, valid, topk)  # (G,)
    dious = overlaps - distances / _squared_diagonals(anchors, objects)  # (P, G)
    inside = (dious >= alpha * threshold) & (dious < threshold) & valid
    return overlaps.where(inside, 0)


def center_distances(anchors: Tensor, objects: Tensor) -> Tensor:
    """Squared distances (P, G) between the centers of boxes (P, 4) and (G, 4), xyxy."""
    ours, theirs = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (anchors, objects))
    return (ours[:, None] - theirs[None]).square().sum(2)


def _squared_diagonals(anchors: Tensor, objects: Tensor) -> Tensor:
    """(P, G), of the smallest box around both; never 0."""
    upper = torch.maximum(anchors[:, None, 2:], objects[None, :, 2:])
    lower = torch.minimum(anchors[:, None, :2], objects[None, :, :2])
    return (upper - lower).square().sum(2).clamp(min=1e-7)


def _threshold(overlaps: Tensor, distances: Tensor, level_sizes: list[int], valid: Tensor, topk: int) -> Tensor:
    """ATSS' mean + standard deviation (unbiased) of the candidates' IoUs, (G,)."""
    distances = distances.where(valid, torch.inf)
    chosen, known = [], []
    for ious, far in zip(overlaps.split(level_sizes), distances.split(level_sizes)):
        nearest = far.topk(min(topk, len(far)), dim=0, largest=False)
        chosen.append(ious.gather(0, nearest.indices))
        known.append(nearest.values.isfinite())  # a level with few valid anchors has fewer candidates
    ious, known = torch.cat(chosen), torch.cat(known)  # (K, G)
    count = known.sum(0)  # (G,)
    mean = ious.where(known, 0).sum(0) / count.clamp(min=1)
    variance = (ious - mean).where(known, 0).square().sum(0) / (count - 1).clamp(min=1)
    return mean + variance.sqrt()
