"""LD's valuable region by a loop over objects and anchors, on plain numbers: what tests compare with."""
import math


def iou_and_diou(a, b):
    """By the definitions, on plain numbers."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    iou = width * height / (sum(area) - width * height)
    distance = ((a[0] + a[2] - b[0] - b[2]) / 2)**2 + ((a[1] + a[3] - b[1] - b[3]) / 2)**2
    diagonal = (max(a[2], b[2]) - min(a[0], b[0]))**2 + (max(a[3], b[3]) - min(a[1], b[1]))**2
    return iou, iou - distance / diagonal


def by_loops(anchors, level_sizes, valid, objects, alpha=0.25, topk=9):
    anchors, objects, valid = anchors.tolist(), objects.tolist(), valid.tolist()
    found = [0.0] * len(anchors)
    for box in objects:
        candidates, start = [], 0
        for size in level_sizes:
            inside = [i for i in range(start, start + size) if valid[i]]
            inside.sort(key=lambda i: math.dist(*[((o[0] + o[2]) / 2, (o[1] + o[3]) / 2) for o in (anchors[i], box)]))
            candidates += inside[:topk]
            start += size
        ious = [iou_and_diou(anchors[i], box)[0] for i in candidates]
        mean = sum(ious) / len(ious)
        t = mean + (sum((iou - mean)**2 for iou in ious) / (len(ious) - 1))**0.5
        for i, anchor in enumerate(anchors):
            iou, diou = iou_and_diou(anchor, box)
            if valid[i] and alpha * t <= diou < t:
                found[i] = max(found[i], iou)
    return found
