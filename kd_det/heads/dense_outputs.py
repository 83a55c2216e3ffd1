"""What dense heads say, in one form for all of them: class logits, boxes, and a logit of box quality."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import (
    AnchorHead,
    ATSSHead,
    DDODHead,
    FCOSHead,
    GFLHead,
    PAAHead,
    RetinaHead,
    RetinaSepBNHead,
    RTMDetHead,
    TOODHead,
    VFNetHead,
    YOLOFHead,
    YOLOXHead,
)
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..errors import ConfigError

Decode = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def _coded(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """Deltas (n, 4) relative to anchors."""
    return get_box_tensor(head.bbox_coder.decode(priors, rows))


def _distribution(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """GFL: logits (n, 4 (reg_max + 1)) of distances in strides; their means are the distances."""
    distances = head.integral(rows) * strides[:, None]  # (n, 4)
    return get_box_tensor(head.bbox_coder.decode(head.anchor_center(priors), distances))


def _distances(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """FCOS: distances (n, 4) to points, in pixels, with norm_on_bbox in strides while training."""
    scale = strides[:, None] if head.norm_on_bbox else 1
    return get_box_tensor(head.bbox_coder.decode(priors, rows * scale))


def _pixel_distances(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """RTMDet: distances (n, 4) to points, in pixels."""
    return get_box_tensor(head.bbox_coder.decode(priors[:, :2], rows))


def _decoded(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """TOOD: boxes (n, 4) in strides."""
    return rows * strides[:, None]


def _offsets(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """YOLOX: offsets (n, 2) of the center and logarithms (n, 2) of the size, in strides."""
    return head._bbox_decode(torch.cat([priors[:, :2], strides[:, None].expand(-1, 2)], 1), rows)


# the first class that fits counts: subclasses before what they derive from
DECODERS: tuple[tuple[type, Decode | None], ...] = (
    (VFNetHead, None), (GFLHead, _distribution), (TOODHead, _decoded), (RTMDetHead, _pixel_distances),
    (FCOSHead, _distances), (PAAHead, _coded), (DDODHead, _coded), (ATSSHead, _coded), (RetinaHead, _coded),
    (RetinaSepBNHead, _coded), (YOLOFHead, _coded), (YOLOXHead, _offsets))
"""How a head's regression output becomes boxes; None: not supported. Add a head of your own here."""


def decoder_of(head: nn.Module, key: str) -> Decode:
    """Raises :class:`ConfigError`, naming ``key``, for a head that is not known here."""
    for cls, decode in DECODERS:
        if isinstance(head, cls) and decode is not None:
            return decode
        if isinstance(head, cls):
            break
    if type(head) is AnchorHead:
        return _coded
    known = sorted(cls.__name__ for cls, decode in DECODERS if decode is not None)
    raise ConfigError(f'{key}: how {type(head).__name__} encodes its boxes is not known; known are '
                      f'{", ".join(known)} and their '
                      'subclasses (others: kd_det.heads.dense_outputs.DECODERS)')


def score_factor_name(head: nn.Module) -> str | None:
    """'iou', 'centerness' or 'objectness', what the head's third output estimates; None: it has none."""
    if isinstance(head, (GFLHead, TOODHead, RTMDetHead)):
        return None
    if isinstance(head, (PAAHead, DDODHead)):
        return 'iou'
    if isinstance(head, YOLOXHead):
        return 'objectness'
    return 'centerness' if isinstance(head, (ATSSHead, FCOSHead)) else None


@dataclass
class DenseOutputs:
    """A head's outputs on a batch of N images with P priors each.

    Attributes:
        logits: (N, P, C), class logits. YOLOX trains its classes on positives alone, so they mean nothing elsewhere:
            here stand the logits of class score times objectness, its scores in prediction.
        regression: (N, P, R), as the head encodes boxes; float32 also under mixed precision.
        factor: (N, P) logits of centerness, IoU or objectness, or None.
        priors: (P, 4) anchors or (P, 2) points, pixels.
        strides: (P,), pixels.
        level_sizes: priors per level, which add up to P.
    """

    head: nn.Module
    decode: Decode
    logits: Tensor
    regression: Tensor
    factor: Tensor | None
    priors: Tensor
    strides: Tensor
    level_sizes: list[int]

    @classmethod
    def of(cls, head: nn.Module, decode: Decode, outputs: tuple) -> 'DenseOutputs':
        """From what the head's ``forward`` returned (training format)."""
        anchors = head.prior_generator.num_base_priors[0]
        scores, boxes = (_flat(maps, anchors) for maps in outputs[:2])
        if isinstance(head, TOODHead):  # hands out probabilities
            scores = scores.float().clamp(1e-6, 1 - 1e-6).logit()
        factor = _flat(outputs[2], anchors).squeeze(-1) if score_factor_name(head) is not None else None
        if isinstance(head, YOLOXHead):
            scores = joint_logits(scores, factor.unsqueeze(-1))
        # 300 x 300 pixels are more than float16 can hold, and corners lose pixels in bfloat16
        boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
        sizes = [level.shape[-2:] for level in outputs[0]]
        levels = [get_box_tensor(level) for level in head.prior_generator.grid_priors(
            sizes, dtype=boxes.dtype, device=boxes.device)]
        strides = torch.cat([boxes.new_full((len(level),), stride[0] if isinstance(stride, tuple) else stride)
                             for level, stride in zip(levels, head.prior_generator.strides)])
        return cls(head, decode, scores, boxes, factor, torch.cat(levels), strides, [len(level) for level in levels])

    def boxes(self, image: int, index: Tensor | slice = slice(None)) -> Tensor:
        """Decoded boxes (n, 4), xyxy in pixels, of the priors ``index`` of one image."""
        return self.decode(self.head, self.regression[image, index], self.priors[index], self.strides[index])

    def all_boxes(self) -> Tensor:
        """Decoded boxes (N, P, 4), xyxy in pixels."""
        images = len(self.regression)
        rows = self.decode(self.head, self.regression.flatten(0, 1), self.priors.repeat(images, 1),
                           self.strides.repeat(images))  # (N P, 4)
        return rows.view(images, -1, 4)


def joint_logits(one: Tensor, other: Tensor) -> Tensor:
    """The logit of p = sigmoid(one) sigmoid(other), float32, exact in both tails and with a finite gradient::

        log p = log s(a) + log s(b),   log(1 - p) = log(s(-a) + s(a) s(-b))
    """
    one, other = one.float(), other.float()
    yes = F.logsigmoid(one)
    return yes + F.logsigmoid(other) - torch.logaddexp(F.logsigmoid(-one), yes + F.logsigmoid(-other))


def _flat(levels: list[Tensor], anchors: int) -> Tensor:
    """Maps (N, A k, h, w) of each level -> (N, P, k), MMDetection's order of priors."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, level.shape[1] // anchors)
                      for level in levels], 1)


@contextmanager
def training_format(head: nn.Module) -> Iterator[None]:
    """Outputs as the head's loss wants them, while its layers stay in eval mode.

    Some heads hand out other things in eval mode (FCOS scales its boxes by the stride); the flag is
    set on the head alone, so batch norms and dropout below it do not see it.
    """
    training, head.training = head.training, True
    try:
        yield
    finally:
        head.training = training


def check_same_priors(head: nn.Module, theirs: nn.Module,
                      names: tuple[str, str] = ('student', 'teacher')) -> None:
    """Raises :class:`ConfigError` unless both heads have the same priors on maps of a common size."""
    one_name, other_name = names
    ours, others = head.prior_generator, theirs.prior_generator
    if list(map(_pair, ours.strides)) != list(map(_pair, others.strides)):
        raise ConfigError(f'bbox_head: the {one_name}\'s strides are {list(ours.strides)}, the {other_name}\'s '
                          f'{list(others.strides)}; the same priors are needed')
    sizes = [(2, 3)] * len(ours.strides)
    for level, (one, other) in enumerate(zip(ours.grid_priors(sizes, device='cpu'),
                                             others.grid_priors(sizes, device='cpu'))):
        one, other = get_box_tensor(one), get_box_tensor(other)
        if one.shape != other.shape or not torch.allclose(one.float(), other.float()):
            raise ConfigError(f'bbox_head: priors of level {level} differ: {one[0].tolist()}... '
                              f'({len(one)} on a 2x3 map) in the {one_name}, {other[0].tolist()}... '
                              f'({len(other)}) in the {other_name}; use the same prior or anchor generator')


def _pair(stride: int | tuple) -> tuple:
    return tuple(stride) if isinstance(stride, (tuple, list)) else (stride, stride)
