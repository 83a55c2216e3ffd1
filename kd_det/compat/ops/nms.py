"""Non-maximum suppression: greedy, soft (Bodla et al., Soft-NMS) and with the groups kept."""
from __future__ import annotations

import numpy as np
import torch
import torchvision.ops  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import compute_dtype

__all__ = ['nms', 'nms_match', 'softnms']

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices of the boxes that greedy NMS keeps, by falling score.

    Args:
        boxes: (N, 4) corners (x1, y1, x2, y2), pixels.
        scores: (N,).
        iou_threshold: a box goes if its IoU with a kept one is larger.
        offset: side lengths are ``x2 - x1 + offset`` (0 or 1).

    Returns:
        Tensor: (K,) int64.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    dtype = compute_dtype(boxes, scores)
    boxes = boxes.detach().to(dtype)  # (N, 4)
    if offset:
        # moving the far corner by the offset gives areas and overlaps with that offset exactly
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])  # (N, 4)
    # torchvision compares in float64, where a float32 IoU of 0.3 is larger than 0.3
    threshold = torch.tensor(iou_threshold, dtype=dtype).item()
    return torch.ops.torchvision.nms(boxes, scores.detach().to(dtype), threshold)


def _iou(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """IoU of one box with (N, 4) others, (N,); 0 where both areas are 0."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]) + offset
    overlap = np.prod(np.maximum(sides, 0), axis=1)
    union = (np.prod(box[2:] - box[:2] + offset)
             + np.prod(others[:, 2:] - others[:, :2] + offset, axis=1) - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union != 0)


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
            min_score: float, method: int, offset: int) -> Tensor:
    """Take the best box again and again, each time lowering the scores of those that overlap it.

    Args:
        boxes: (N, 4) on the CPU (MMCV's wrapper moves them).
        scores: (N,).
        dets: (N, 5); its first K rows are filled with boxes and lowered scores.
        iou_threshold: overlaps from here on are lowered (naive: to 0, linear: by ``1 - IoU``).
        sigma: gaussian: all are lowered by ``exp(-IoU^2 / sigma)``.
        min_score: boxes whose score falls below it are dropped.
        method: 0 naive, 1 linear, 2 gaussian.

    Returns:
        Tensor: (K,) int64, indices into ``boxes`` in the order taken.
    """
    if method not in (NAIVE, LINEAR, GAUSSIAN):
        raise ValueError(f'softnms: method is {method!r}, expected 0 (naive), 1 (linear) or 2 '
                         '(gaussian)')
    dtype = compute_dtype(boxes, scores)
    box = boxes.detach().to(dtype).numpy()  # (N, 4)
    score = scores.detach().to(dtype).numpy().copy()  # (N,)
    rest = np.arange(len(box))
    taken = []
    while len(rest):
        # Ties go to the first. Taking and dropping move the last ones into the gap, which is the
        # order MMCV's kernel leaves, so that ties fall alike.
        best = int(score[rest].argmax())
        index = rest[best]
        taken.append(index)
        rest[best] = rest[0]
        rest = rest[1:]
        iou = _iou(box[index], box[rest], offset)
        if method == GAUSSIAN:
            factor = np.exp(-iou ** 2 / sigma)
        else:
            factor = np.where(iou >= iou_threshold, 0 if method == NAIVE else 1 - iou, 1)
        score[rest] *= factor.astype(score.dtype)
        keep = score[rest] >= min_score
        count = int(keep.sum())
        gaps = np.flatnonzero(~keep[:count])
        rest[gaps] = rest[count:][keep[count:]][::-1]
        rest = rest[:count]
    index = torch.tensor(np.array(taken, dtype=np.int64))  # (K,)
    dets[:len(taken), :4] = boxes.detach()[index].to(dets.dtype)
    dets[:len(taken), 4] = torch.from_numpy(score)[index].to(dets.dtype)
    return index


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of greedy NMS: each kept box, then those it suppresses, by falling score.

    Args:
        dets: (N, 5) of (x1, y1, x2, y2, score) on the CPU.
        iou_threshold: a box joins the group of the first kept one it overlaps this much or more.
    """
    array = dets.detach().to(compute_dtype(dets)).numpy()  # (N, 5)
    order = np.argsort(-array[:, 4], kind='stable')
    groups = []
    while len(order):
        best, order = order[0], order[1:]
        joined = _iou(array[best, :4], array[order, :4], 0) >= iou_threshold
        groups.append([int(best), *order[joined].tolist()])
        order = order[~joined]
    return groups
