"""How each dense head's logits become scores, and its regression boxes: one table for all of them.

====================  ======================================  ================================  =====================
head                  score of class c at a prior             what the head drops before NMS    boxes
====================  ======================================  ================================  =====================
RetinaNet, GFL        sigmoid(z_c)                            threshold and top k on the score  deltas; GFL: means of
                                                                                                its distributions
RTMDet                sigmoid(z_c)                            the same                          distances in pixels
TOOD                  z_c, a probability already              the same                          boxes in strides
FCOS, ATSS, DDOD      sigmoid(z_c) sigmoid(q), q centerness   the same, on sigmoid(z_c) alone   distances; deltas
                      or IoU
PAA                   sqrt(sigmoid(z_c) sigmoid(q))           top k priors by their best class  deltas
YOLOX                 sigmoid(z_c) sigmoid(o), o objectness   all but the best class            offset and log size
SSD                   softmax(z)_c, background is last        threshold and top k on the score  deltas
====================  ======================================  ================================  =====================

What a head drops has score 0 in the exported output, so that NMS needs no second threshold on another quantity.
"""
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmdet.models.dense_heads import (
    ATSSHead,
    DDODHead,
    FCOSHead,
    GFLHead,
    PAAHead,
    RetinaHead,
    RTMDetHead,
    SSDHead,
    TOODHead,
    VFNetHead,
    YOLOXHead,
)
from torch import Tensor, nn

from ..errors import ConfigError
from ..heads.dense_outputs import decoder_of


def _deltas(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    return head.bbox_coder.decode(priors, rows)


def _yolox_boxes(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """Offset of the centre in strides and logarithm of the size in strides."""
    centre = rows[:, :2] * strides[:, None] + priors[:, :2]  # (n, 2)
    half = rows[:, 2:].exp() * strides[:, None] / 2
    return torch.cat([centre - half, centre + half], 1)


def _sigmoid(z: Tensor, q: Tensor | None) -> tuple[Tensor, Tensor]:
    return z.sigmoid(), z.sigmoid()


def _probability(z: Tensor, q: Tensor | None) -> tuple[Tensor, Tensor]:
    return z, z


def _softmax(z: Tensor, q: Tensor | None) -> tuple[Tensor, Tensor]:
    scores = z.softmax(-1)[:, :-1]
    return scores, scores


def _product(z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    return z.sigmoid() * q.sigmoid(), z.sigmoid()


def _geometric_mean(z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    scores = (z.sigmoid() * q.sigmoid()).sqrt()
    return scores, scores


def _objectness(z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    scores = z.sigmoid() * q.sigmoid()
    return scores, scores


@dataclass(frozen=True)
class HeadOutputs:
    """One line of the table.

    Attributes:
        score: (z (n, C), q (n, 1)) -> (the score (n, C), what is compared with threshold and top k (n, C)).
        top: what the head's ``nms_pre`` counts: 'pairs' of prior and class, 'priors', or None.
        clips: whether boxes are clipped to the image before NMS.
        decode: of the regression, where :func:`kd_det.heads.dense_outputs.decoder_of` does not know the head.
        best_class: only the best class of a prior counts.
    """
    score: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
    top: str | None = 'pairs'
    clips: bool = True
    decode: Callable | None = None
    best_class: bool = False


# the first class that fits counts: subclasses before what they derive from
HEADS: tuple[tuple[type, HeadOutputs | None], ...] = (
    (VFNetHead, None), (GFLHead, HeadOutputs(_sigmoid)), (TOODHead, HeadOutputs(_probability, clips=False)),
    (RTMDetHead, HeadOutputs(_sigmoid)), (FCOSHead, HeadOutputs(_product)),
    (PAAHead, HeadOutputs(_geometric_mean, top='priors')), (DDODHead, HeadOutputs(_product)),
    (ATSSHead, HeadOutputs(_product)), (SSDHead, HeadOutputs(_softmax, decode=_deltas)),
    (YOLOXHead, HeadOutputs(_objectness, top=None, clips=False, decode=_yolox_boxes, best_class=True)),
    (RetinaHead, HeadOutputs(_sigmoid)))


def outputs_of(model: nn.Module) -> HeadOutputs:
    """The table's line for a detector, with its decoder.

    Raises:
        ConfigError: a query-based detector, or a head that is not in the table; says why.
    """
    head = getattr(model, 'bbox_head', None)
    for cls, line in HEADS:
        if isinstance(head, cls):
            if line is None:
                break
            decode = line.decode or decoder_of(head, 'bbox_head')
            return HeadOutputs(line.score, line.top, line.clips, decode, line.best_class)
    known = ', '.join(cls.__name__ for cls, line in HEADS if line is not None)
    reason = 'its deformable convolutions are no ONNX operator that ONNX Runtime is tested with' \
        if isinstance(head, VFNetHead) else 'how its logits become scores and boxes is not in the table'
    raise ConfigError(f'--onnx: {type(head).__name__} of {type(model).__name__}: {reason}; heads that are tested: '
                      f'{known}')
