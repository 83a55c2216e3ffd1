"""Weighted box fusion: one box out of several detectors' boxes of one object.

Written here because the package that is known for it (ensemble-boxes) brings numba and pandas along for fifty lines.
"""
from collections.abc import Sequence

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

Detections = tuple[Tensor, Tensor, Tensor]
"""Boxes (D, 4) xyxy in pixels, scores (D,), labels (D,)."""


def fuse(found: Sequence[Detections], weights: Sequence[float] | None = None, iou: float = 0.55,
         knows: Sequence[Sequence[int] | None] | None = None) -> Detections:
    """Boxes of one image::

        box   = sum of w_i s_i box_i / sum of w_i s_i             over the boxes of one cluster
        score = sum of w_i s_i / sum of w_i  * min(W, W_c) / W    the first sum over the cluster, best box per detector

    Boxes are taken by falling w s; one joins the first-best cluster of its class whose fused box it overlaps by more
    than ``iou``, else it begins one. W is the sum of weights of the detectors that know the class, W_c that of those
    with a box in the cluster: what only one of several sees loses score.

    Args:
        found: of each detector.
        weights: of each detector, above 0; None: 1.
        iou: 0.55 in the paper.
        knows: the labels that each detector knows; None: all.

    Returns:
        Fused detections, best first.

    Source: Solovyev, Wang, Gabruseva 2021, "Weighted boxes fusion" (arXiv 1910.13302), section 3.
    """
    weights = [1.0] * len(found) if weights is None else list(weights)
    rows = [(w * float(score), m, float(score), box.double(), int(label))
            for m, ((boxes, scores, labels), w) in enumerate(zip(found, weights))
            for box, score, label in zip(boxes.cpu(), scores.cpu(), labels.cpu())]
    rows.sort(key=lambda row: -row[0])
    clusters: list[dict] = []
    for strength, member, score, box, label in rows:
        same = [c for c in clusters if c['label'] == label]
        best = None
        if same:
            overlaps = bbox_overlaps(box[None], torch.stack([c['box'] for c in same]))[0]
            best = same[int(overlaps.argmax())] if float(overlaps.max()) > iou else None
        if best is None:
            best = dict(label=label, box=box, sum=torch.zeros(4, dtype=torch.double), mass=0.0, by={})
            clusters.append(best)
        best['sum'] = best['sum'] + strength * box
        best['mass'] += strength
        best['by'][member] = max(best['by'].get(member, 0.0), score)
        best['box'] = best['sum'] / best['mass'] if best['mass'] > 0 else box
    fused = sorted(((c['box'], _score(c, weights, knows), c['label']) for c in clusters), key=lambda row: -row[1])
    if not fused:
        return torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    boxes, scores, labels = zip(*fused)
    return torch.stack(boxes).float(), torch.tensor(scores), torch.tensor(labels)


def _score(cluster: dict, weights: list[float], knows: Sequence[Sequence[int] | None] | None) -> float:
    whole = sum(w for m, w in enumerate(weights)
                if knows is None or knows[m] is None or cluster['label'] in knows[m])
    seen = sum(weights[m] for m in cluster['by'])
    mean = sum(weights[m] * score for m, score in cluster['by'].items()) / seen
    return mean * min(whole, seen) / whole
