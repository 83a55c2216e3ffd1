"""What a teacher sees in an image, prior by prior on plain numbers: what tests compare with."""
import math

import torch


def score_of(outputs, image, place, estimates=None):
    """(score, label) of a prior; ``estimates`` is what the third branch is ('centerness', 'iou')."""
    scores = [sigmoid(z) for z in outputs.logits[image, place].tolist()]
    score = max(scores) * (sigmoid(float(outputs.factor[image, place])) if estimates else 1)
    return math.sqrt(score) if estimates == 'iou' else score, scores.index(max(scores))


def between_scores(outputs, count, estimates=None):
    """A threshold that ``count`` priors of all images reach."""
    images, priors = outputs.logits.shape[:2]
    scores = sorted((score_of(outputs, i, p, estimates)[0] for i in range(images) for p in range(priors)), reverse=True)
    return (scores[count - 1] + scores[count]) / 2


def seen_by_loops(outputs, image, score_thr, estimates=None):
    """Boxes (G, 4), the surest first."""
    rows = []
    for place, box in enumerate(outputs.boxes(image).tolist()):
        score, label = score_of(outputs, image, place, estimates)
        if score >= score_thr and box[2] > box[0] and box[3] > box[1]:
            rows.append((score, label, box))
    kept = []
    for _, label, box in sorted(rows, key=lambda row: -row[0]):
        if all(label != other or overlap(box, one) <= 0.6 for other, one in kept):
            kept.append((label, box))
    return torch.tensor([box for _, box in kept]).reshape(-1, 4)


def overlap(a, b):
    """IoU."""
    both = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))
