"""From which score on a detection is taken for an object: by class, on images whose objects are known."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from ..errors import DataError
from .fusion import Detections


@dataclass
class ClassThreshold:
    """Of one class.

    Attributes:
        name: of the class.
        threshold: detections with this score or more are objects.
        precision, recall: of these on the validation set, in [0, 1]; None: the threshold was given, not chosen.
        kept: how many they are there.
        ignore: detections from here to ``threshold`` are neither object nor background.
    """

    name: str
    threshold: float
    precision: float | None
    recall: float | None
    kept: int
    ignore: float


def choose(classes: Sequence[str], found: Sequence[Detections], truth: Sequence[tuple[Tensor, Tensor, Tensor]],
           beta: float = 0.5, iou: float = 0.5, ignore_recall: float = 0.9,
           otherwise: float | None = None) -> list[ClassThreshold]:
    """For each class the score with the largest F-beta::

        F = (1 + b^2) precision recall / (b^2 precision + recall)

    b < 1 prefers precision: a wrong box teaches something wrong, a missing one in the ignore band costs little. The
    ignore band begins at the highest score at which all detections above reach ``ignore_recall`` of the recall that the
    detector reaches at all.

    Args:
        classes: names, in the order of the labels.
        found: detections of each image.
        truth: boxes (G, 4), labels (G,), and whether each is a crowd region (G,), which counts neither way.
        beta: b > 0.
        iou: from which overlap on a detection has found an object.
        otherwise: the threshold of classes without an object here, whose ignore band begins at half of it.

    Raises:
        DataError: a class without an object in the validation set and ``otherwise`` not given; one of whose objects not
            a single one is found.
    """
    chosen = []
    for label, name in enumerate(classes):
        rows: list[tuple[float, bool]] = []
        objects = 0
        for detections, (boxes, labels, crowd) in zip(found, truth):
            mine = labels == label
            objects += int((mine & ~crowd).sum())
            rows += _matched(detections, boxes[mine], crowd[mine], label, iou)
        if not objects and otherwise is None:
            raise DataError(f'class {name!r} has no object in the validation set, so that no threshold can be chosen '
                            'for it; give one with --threshold for such classes')
        if not objects:
            chosen.append(ClassThreshold(name, otherwise, None, None, 0, otherwise / 2))
            continue
        rows.sort(key=lambda row: -row[0])
        if not any(true for _, true in rows):
            raise DataError(f'class {name!r}: none of {len(rows)} detections finds one of its {objects} objects; class '
                            'names or their order may differ between teacher and data')
        chosen.append(_best(name, rows, objects, beta, ignore_recall))
    return chosen


def _best(name: str, rows: list[tuple[float, bool]], objects: int, beta: float, ignore_recall: float) -> ClassThreshold:
    best, true, curve = None, 0, []
    for kept, (score, right) in enumerate(rows, 1):
        true += right
        if kept < len(rows) and rows[kept][0] == score:
            continue  # equal scores stand on one side
        precision, recall = true / kept, true / objects
        curve.append((score, recall))
        f = (1 + beta**2) * precision * recall / (beta**2 * precision + recall) if true else 0.0
        if best is None or f > best[0]:
            best = f, score, precision, recall, kept
    _, threshold, precision, recall, kept = best
    ignore = next(score for score, reached in curve if reached >= ignore_recall * curve[-1][1])
    return ClassThreshold(name, threshold, precision, recall, kept, min(ignore, threshold))


def _matched(detections: Detections, boxes: Tensor, crowd: Tensor, label: int, iou: float) -> list[tuple[float, bool]]:
    """(score, found an object) of one image's detections of one class, each object found once, by the best first."""
    scores, mine = detections[1], detections[2] == label
    order = scores[mine].argsort(descending=True, stable=True)
    mine_boxes, mine_scores = detections[0][mine][order], scores[mine][order]
    rows: list[tuple[float, bool]] = []
    overlaps = bbox_overlaps(mine_boxes, boxes[~crowd]) if len(boxes) else mine_boxes.new_zeros(len(mine_boxes), 0)
    inside = mine_boxes.new_zeros(len(mine_boxes), 1)
    if crowd.any():
        inside = bbox_overlaps(mine_boxes, boxes[crowd], mode='iof')
    free = torch.ones(overlaps.shape[1], dtype=torch.bool)
    for i in range(len(mine_boxes)):
        row = torch.where(free, overlaps[i], torch.full_like(overlaps[i], -1)) if free.numel() else overlaps[i]
        if row.numel() and float(row.max()) >= iou:
            free[int(row.argmax())] = False
            rows.append((float(mine_scores[i]), True))
        elif float(inside[i].max()) < iou:
            rows.append((float(mine_scores[i]), False))
    return rows


def table(chosen: Sequence[ClassThreshold]) -> str:
    """As text: class, threshold, where the ignore band begins, precision, recall, boxes kept."""
    width = max(len('class'), *(len(row.name) for row in chosen))
    lines = [f'{"class":<{width}} threshold  ignore from  precision  recall  boxes kept']
    for row in chosen:
        found = ['-' if value is None else f'{value:.3f}' for value in (row.precision, row.recall)]
        kept = '-' if row.precision is None else str(row.kept)  # given, not chosen
        lines.append(f'{row.name:<{width}} {row.threshold:9.3f}  {row.ignore:11.3f}  {found[0]:>9}  {found[1]:>6}  '
                     f'{kept:>10}')
    return '\n'.join(lines)
