"""The class distribution behind each final box: the scores of the prior, RoI or query that it comes from."""
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import PAAHead, YOLOXHead
from mmdet.models.detectors import DetectionTransformer
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor

from ..errors import ConfigError
from .layers import head_features

TOLERANCE = 1e-3
"""Of a score, relative: the same numbers come from the same maps twice."""


class Candidates(NamedTuple):
    """What the detections of one image were chosen from.

    Attributes:
        probabilities: (M, K), sigmoids of K = C classes, or a softmax over K = C + 1 with the background last.
        scores: (M, C), by which detections are ranked: a centerness or IoU is in them.
        boxes: (M, 4), or (M, C, 4) where each class has a box of its own; xyxy in the network's pixels.
    """

    probabilities: Tensor
    scores: Tensor
    boxes: Tensor


@torch.no_grad()
def distributions_of(found: Any) -> list[Tensor]:
    """The class distributions (D, K) of each image's detections (:meth:`kd_det.sources.passes.Pass.detections`).

    A detection comes from the candidate that has its score for its class; of several such, from that whose box is
    nearest (PAA's voting moves boxes and leaves scores).

    Raises:
        ConfigError: a detector whose final scores are not those of priors, RoIs or queries, as far as is known here.
    """
    detections, candidates = found.detections(), _candidates(found)
    return [_behind(image, one, size, type(found.model).__name__)
            for image, one, size in zip(detections, candidates, found.image_sizes(), strict=True)]


def _behind(image: InstanceData, candidates: Candidates, size: tuple[int, int], name: str) -> Tensor:
    """(D, K) of one image of ``size`` (h, w)."""
    probabilities, scores, boxes = candidates
    if not len(image):
        return probabilities[:0]
    off = (scores[:, image.labels].T - image.scores[:, None]).abs()  # (D, M)
    theirs = boxes[None] if boxes.dim() == 2 else boxes[:, image.labels].transpose(0, 1)  # (1 or D, M, 4)
    inside = theirs.clamp(min=0).minimum(theirs.new_tensor([*size[::-1], *size[::-1]]))  # most detectors cut boxes
    apart = torch.minimum(*((one - image.bboxes[:, None]).abs().sum(-1) for one in (theirs, inside)))  # (D, M)
    apart = apart.masked_fill(off > TOLERANCE * image.scores[:, None], torch.inf)
    nearest = apart.amin(1)
    place = off.masked_fill(apart > nearest[:, None] + 1, torch.inf).argmin(1)  # cut boxes may coincide
    if not bool(nearest.isfinite().all()):
        raise ConfigError(f'{name}: its final scores are not those of its priors, RoIs or queries, so that the class '
                          'distributions of its boxes are not known; learn from boxes and scores alone (soft=None)')
    return probabilities[place]


def _candidates(found: Any) -> list[Candidates]:
    model = found.model
    if isinstance(model, DetectionTransformer):
        return _queries(found)
    if hasattr(model, 'rpn_head') and hasattr(model, 'roi_head'):
        return _rois(found)
    if hasattr(model, 'bbox_head'):
        return _priors(found)
    raise ConfigError(f'{type(model).__name__}: what its boxes come from is not known; single-stage and two-stage '
                      'detectors and transformers have class distributions')


def _split(probabilities: Tensor, sigmoid: bool) -> Tensor:
    """Of C classes, without the background."""
    return probabilities if sigmoid else probabilities[..., :-1]


def _priors(found: Any) -> list[Candidates]:
    outputs = found.dense_outputs()
    head, logits = outputs.head, outputs.logits.float()  # (N, P, K)
    sigmoid = bool(getattr(head, 'use_sigmoid_cls', True))
    probabilities = logits.sigmoid() if sigmoid else logits.softmax(-1)
    scores = _split(probabilities, sigmoid)
    if outputs.factor is not None and not isinstance(head, YOLOXHead):  # YOLOX: it is in the logits
        scores = scores * outputs.factor.float().sigmoid().unsqueeze(-1)
    if isinstance(head, PAAHead):
        scores = scores.sqrt()
    return [Candidates(*one) for one in zip(probabilities, scores, outputs.all_boxes())]


def _rois(found: Any) -> list[Candidates]:
    model, samples = found.model, found.views()
    raw = model.roi_head.predict_bbox(found.features, [sample.metainfo for sample in samples],
                                      found.proposed_instances(), rcnn_test_cfg=None, rescale=False)
    return [Candidates(image.scores, _split(image.scores, sigmoid=False), _by_class(image)) for image in raw]


def _by_class(image: InstanceData) -> Tensor:
    """The boxes of R RoIs, (R, C, 4), or (R, 4) where all classes share one."""
    if not len(image.scores):
        return image.scores.new_zeros(0, 4)
    boxes = image.bboxes.view(len(image.scores), -1, 4)
    return boxes[:, 0] if boxes.shape[1] == 1 else boxes


def _queries(found: Any) -> list[Candidates]:
    model, samples = found.model, found.views()
    inputs = head_features(model, found.features, samples)
    outputs = model.bbox_head(**{name: inputs[name] for name in ('hidden_states', 'references') if name in inputs})
    logits, centred = outputs[0][-1].float(), outputs[1][-1]  # (N, Q, K), (N, Q, 4) in parts of the image
    sigmoid = bool(getattr(model.bbox_head.loss_cls, 'use_sigmoid', False))
    probabilities = logits.sigmoid() if sigmoid else logits.softmax(-1)
    sides = [sample.metainfo['img_shape'][:2] for sample in samples]
    boxes = [bbox_cxcywh_to_xyxy(image) * image.new_tensor([w, h, w, h]) for image, (h, w) in zip(centred, sides)]
    return [Candidates(one, _split(one, sigmoid), box) for one, box in zip(probabilities, boxes)]
