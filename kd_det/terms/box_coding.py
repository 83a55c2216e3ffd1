"""Boxes of two heads in one encoding."""
import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn


def per_anchor(maps: Tensor, channels: int) -> Tensor:
    """(N, A * C, h, w) -> (N * h * w * A, C), MMDetection's order of anchors."""
    return maps.permute(0, 2, 3, 1).reshape(-1, channels)


def of_class(deltas: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """The box of each row's target class: (P, 4 * classes) or, class-agnostic, (P, 4) -> (P, 4)."""
    if head.reg_class_agnostic:
        return deltas.reshape(len(deltas), 4)
    return deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[torch.arange(len(labels), device=labels.device), labels]


def same_coder(one: nn.Module, other: nn.Module) -> bool:
    """Whether both encode a box alike: of one class, with equal settings (means, stds, normaliser ...)."""
    return type(one) is type(other) and {k: v for k, v in vars(one).items() if not k.startswith('_')} == \
        {k: v for k, v in vars(other).items() if not k.startswith('_')}


def recode(deltas: Tensor, priors: Tensor, source: nn.Module, target: nn.Module, about: Tensor | None = None) -> Tensor:
    """Deltas (P, 4) of one box coder in the encoding of another; encodings are relative to the prior, so a common
    scale of image and prior cancels.

    Args:
        deltas: (P, 4).
        priors: (P, 4), what the result is relative to.
        source, target: box coders.
        about: (P, 4), what ``deltas`` are relative to, where that is something else.
    """
    if about is None and same_coder(source, target):
        return deltas
    return target.encode(priors, get_box_tensor(source.decode(priors if about is None else about, deltas)))


def encoded(targets: Tensor, priors: Tensor, head: nn.Module) -> Tensor:
    """Targets (P, 4) as deltas: heads with ``reg_decoded_bbox`` hold boxes (xyxy, pixels) instead."""
    return head.bbox_coder.encode(priors, targets) if head.reg_decoded_bbox else targets
