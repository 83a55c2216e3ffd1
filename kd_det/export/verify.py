"""ONNX Runtime against PyTorch, after NMS, on real images."""
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import nn

from ..errors import ConfigError
from . import onnx_detect

BOX_TOLERANCE, SCORE_TOLERANCE = 0.1, 1e-3
"""Pixels, and scores: what float32 rounding in another order may change; detections nearer to a threshold may differ.
"""
TIE = 1e-5
"""Scores that are closer than this are equal, and NMS may take any of them first. All places in the padding that see
nothing but padding have equal scores; their boxes can reach into the image.
"""
THIN = 1e-3
"""Pixels: rounding of a side. A box of 0 or 1e-6 pixels at the border, where it is clipped, is kept or dropped by it.
"""


@dataclass
class Agreement:
    """What the comparison found.

    Attributes:
        images, detections (int): how many, PyTorch's.
        box, score (float): largest difference of matched detections, pixels and scores.
        ties (int): images that agree only when ONNX's NMS takes, among scores closer than :data:`TIE`, what PyTorch
            took.
        faults (list[str]): what is not the same, by image; empty: they agree.
    """
    images: int = 0
    detections: int = 0
    box: float = 0.0
    score: float = 0.0
    ties: int = 0
    faults: list[str] = field(default_factory=list)


def verify(model: nn.Module, path: str, images: Sequence[str]) -> Agreement:
    """Run both on every image: PyTorch by the detector's own ``predict``, ONNX by the post-processing that is shipped.

    Raises:
        ConfigError: an image that cannot be read; PyTorch detects nothing in any image, which would prove nothing.
    """
    session, meta = onnx_detect.load(path)
    result = Agreement()
    for file in images:
        image = cv2.imread(file)
        if image is None:
            raise ConfigError(f'--images: {file} cannot be read as an image')
        image = fitted(image, meta['input_size'])
        scores, boxes = (part[0] for part in session.run(['scores', 'boxes'], onnx_detect.feeds(image, meta)))
        theirs = reference(model, image, meta)
        check(osp.basename(file), theirs, scores, boxes, image.shape[:2], meta, result)
    if not result.detections:
        raise ConfigError(f'--images: the detector finds nothing in these {len(images)} images, so they prove nothing; '
                          'give images with objects')
    return result


def fitted(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resized, its proportions kept, to the largest that fits into (height, width)."""
    factor = min(size[0] / image.shape[0], size[1] / image.shape[1])
    shape = (min(round(image.shape[1] * factor), size[1]), min(round(image.shape[0] * factor), size[0]))
    return cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR)


@torch.no_grad()
def reference(model: nn.Module, image: np.ndarray, meta: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The detector's own predictions: its data preprocessor, then padded to the fixed size, then ``predict``."""
    height, width = meta['input_size']
    h, w = image.shape[:2]
    sample = DetDataSample(metainfo=dict(img_shape=(h, w), ori_shape=(h, w), scale_factor=(1.0, 1.0), img_id=0))
    data = model.data_preprocessor(dict(inputs=[torch.from_numpy(image.transpose(2, 0, 1).copy())],
                                        data_samples=[sample]), False)
    inputs = data['inputs'][:, :, :h, :w].float()
    pad = (torch.tensor(meta['pad_value']) - torch.tensor(meta['mean'])) / torch.tensor(meta['std'])
    canvas = F.pad(inputs, (0, width - w, 0, height - h))
    canvas[:, :, h:] = pad[:, None, None]
    canvas[:, :, :, w:] = pad[:, None, None]
    data['data_samples'][0].set_metainfo(dict(batch_input_shape=(height, width), pad_shape=(height, width)))
    found = model.predict(canvas, data['data_samples'], rescale=False)[0].pred_instances
    return tuple(part.numpy() for part in (found.bboxes, found.scores, found.labels))


def check(name: str, theirs: tuple, scores: np.ndarray, boxes: np.ndarray, shape: tuple[int, int], meta: dict,
          result: Agreement) -> None:
    """Compare PyTorch's detections of one image with those of ONNX's (P, C) scores and (P, 4) boxes, and count.

    If they differ, once more with PyTorch's order among equal scores: what both find must be the same then.
    """
    found = compare(name, theirs, onnx_detect.detect(scores, boxes, shape, meta), meta)
    if found.faults:
        same_order = compare(name, theirs, onnx_detect.detect(preferred(theirs, scores, boxes, shape, meta), boxes,
                                                              shape, meta), meta)
        if not same_order.faults:
            found = same_order
            found.ties = 1
    result.images += 1
    result.detections += found.detections
    result.ties += found.ties
    result.box, result.score = max(result.box, found.box), max(result.score, found.score)
    result.faults += found.faults


def preferred(theirs: tuple, scores: np.ndarray, boxes: np.ndarray, shape: tuple[int, int], meta: dict) -> np.ndarray:
    """The scores, raised by :data:`TIE` for what PyTorch detected, so that it comes first among its equals."""
    if meta['clip']:
        boxes = np.clip(boxes, 0, [shape[1], shape[0], shape[1], shape[0]])
    scores = scores.copy()
    raised = np.zeros(scores.shape, bool)
    for box, score, label in zip(*theirs):
        own = boxes if boxes.ndim == 2 else boxes[:, label]
        raised[:, label] |= (np.abs(own - box).max(1) <= BOX_TOLERANCE) & (np.abs(scores[:, label] - score) <= TIE)
    return np.where(raised & (scores > 0), scores + np.float32(TIE), scores)


def compare(name: str, theirs: tuple, ours: tuple, meta: dict) -> Agreement:
    """Match one image's detections by class and place, and note what differs.

    Detections within the tolerance of the score threshold, of the last place that ``max_per_image`` leaves, or of the
    smallest side that is kept, may be there on one side only.
    """
    (boxes, scores, labels), (our_boxes, our_scores, our_labels) = theirs, ours
    result = Agreement(images=1, detections=len(scores))
    edge = meta['score_threshold']
    for kept in (scores, our_scores):
        if len(kept) >= meta['max_per_image']:
            edge = max(edge, kept.min())
    # PAA's score voting makes NaN of a box without area, which is no detection
    finite = np.isfinite(boxes).all(1)
    boxes, scores, labels = boxes[finite], scores[finite], labels[finite]
    free = np.ones(len(our_scores), bool)
    missing = 0
    for box, score, label in zip(boxes, scores, labels):
        distance = np.abs(our_boxes - box).max(1) if len(our_boxes) else np.zeros(0)
        alike = (distance <= BOX_TOLERANCE) & (np.abs(our_scores - score) <= SCORE_TOLERANCE)
        near = free & (our_labels == label) & alike
        if not near.any():
            missing += score > edge + SCORE_TOLERANCE and not _thin(box[None], meta)[0]
            continue
        best = int(np.argmin(np.where(near, distance, np.inf)))
        free[best] = False
        result.box = max(result.box, float(distance[best]))
        result.score = max(result.score, float(abs(our_scores[best] - score)))
    surplus = int((free & (our_scores > edge + SCORE_TOLERANCE) & ~_thin(our_boxes, meta)).sum())
    if missing or surplus:
        result.faults.append(f'{name}: PyTorch {len(scores)} detections, ONNX {len(our_scores)}; {missing} of '
                             f'PyTorch\'s have no equal in class, box and score, {surplus} of ONNX\'s none')
    return result


def _thin(boxes: np.ndarray, meta: dict) -> np.ndarray:
    """Whether a side is within :data:`THIN` of the smallest that is kept: rounding decides whether the box is."""
    return np.abs((boxes[:, 2:] - boxes[:, :2]).min(1) - meta['min_size']) <= THIN
