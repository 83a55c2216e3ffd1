"""What a teacher's own dense predictions say of images without labels, where ground truth would say it otherwise."""
import torch
from mmdet.utils import reduce_mean
from torch import Tensor
from torchvision.ops import batched_nms

from ..heads.dense_outputs import DenseOutputs, score_factor_name

SAME = 0.6
"""IoU above which the worse of two boxes of one class is the better one's again: MMDetection's for dense heads."""


def priors_inside(priors: Tensor, samples: list) -> Tensor:
    """Whether the centre of each prior, anchor (P, 4) or point (P, 2), lies in the image and not in its padding: float
    (N, P).
    """
    centres = priors[:, :2] if priors.shape[1] == 2 else (priors[:, :2] + priors[:, 2:4]) / 2  # (P, 2), x and y
    sizes = priors.new_tensor([sample.metainfo['img_shape'][1::-1] for sample in samples])      # (N, 2), w and h
    return ((centres >= 0) & (centres < sizes[:, None])).all(-1).to(priors.dtype)


@torch.no_grad()
def expected_positives(teacher: DenseOutputs, known: Tensor | None, inside: Tensor) -> Tensor:
    """How many priors the teacher expects to serve an object: the sum of its largest scores over priors ``inside`` (N,
    P), averaged over ranks, at least 1.
    """
    return reduce_mean((_best(teacher.logits, known)[0] * inside).sum()).clamp(min=1)


@torch.no_grad()
def seen_boxes(teacher: DenseOutputs, known: Tensor | None, inside: Tensor, score_thr: float) -> list[Tensor]:
    """The objects that the teacher sees in each image: boxes (G, 4), xyxy in pixels, the surest first.

    At priors ``inside`` (N, P) with a score of at least ``score_thr``, after non-maximum suppression by class. The
    score is that of the head's prediction: the best class score, times the centerness, or the geometric mean with the
    IoU (PAA, DDOD).
    """
    use_sigmoid = bool(getattr(teacher.head, 'use_sigmoid_cls', True))
    scores, labels = _best(teacher.logits, known, use_sigmoid)  # (N, P) each
    estimates = score_factor_name(teacher.head)
    if teacher.factor is not None and estimates in ('centerness', 'iou'):  # objectness is in the logits already
        scores = scores * teacher.factor.float().sigmoid()
        scores = scores.sqrt() if estimates == 'iou' else scores
    found = []
    for image, (score, label, fits) in enumerate(zip(scores, labels, inside > 0)):
        places = (fits & (score >= score_thr)).nonzero().flatten()
        boxes = teacher.boxes(image, places).float()
        places, boxes = places[usable := (boxes[:, 2:] > boxes[:, :2]).all(1)], boxes[usable]
        found.append(boxes[batched_nms(boxes, score[places], label[places], SAME)])
    return found


def _best(logits: Tensor, known: Tensor | None, use_sigmoid: bool = True) -> tuple[Tensor, Tensor]:
    """The largest probability (N, P) of a class that the source knows, and which of these classes it is (N, P)."""
    scores = logits.float().sigmoid() if use_sigmoid else logits.float().softmax(-1)[..., :-1]
    return (scores if known is None else scores[..., known.to(scores.device)]).max(-1)
