"""Focal losses (Lin et al., Focal Loss for Dense Object Detection, eq. 5), per element."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import compute_dtype

__all__ = [
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward',
    'softmax_focal_loss_forward',
]


def _row_weight(weight: Tensor, target: Tensor, num_classes: int) -> Tensor | float:
    """Weight of each row's class, (N,); rows of no class (background, ignored) weigh 1."""
    if weight.numel() == 0:
        return 1.0
    row = weight.detach()[target.clamp(0, num_classes - 1)]  # (N,)
    labelled = (target >= 0) & (target < num_classes)  # (N,)
    return torch.where(labelled, row, torch.ones_like(row))  # (N,)


def _sigmoid_terms(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, p, 1 - p and whether the column is the row's class, (N, C) each."""
    x = input.detach().to(compute_dtype(input))  # (N, C)
    positive = target[:, None] == torch.arange(x.size(1), device=x.device)  # (N, C)
    return x, x.sigmoid(), (-x).sigmoid(), positive


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    """``-alpha (1-p)^gamma log p`` for the row's class, ``-(1-alpha) p^gamma log(1-p)`` elsewhere.

    Args:
        input: logits (N, C); ``p`` is their sigmoid.
        target: (N,) int64, any value outside [0, C) is background.
        weight: (C,) class weights or empty.
        output: (N, C), filled.
    """
    x, p, q, positive = _sigmoid_terms(input, target)
    loss = torch.where(positive, -alpha * q.pow(gamma) * F.logsigmoid(x),
                       -(1 - alpha) * p.pow(gamma) * F.logsigmoid(-x))  # (N, C)
    row = _row_weight(weight, target, x.size(1))
    output.copy_(loss if isinstance(row, float) else loss * row[:, None])


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor,
                                grad_input: Tensor, gamma: float, alpha: float) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of each loss by its logit.

    With ``q = 1 - p``: ``-alpha q^gamma (q - gamma p log p)`` for the row's class and
    ``-(1-alpha) p^gamma (gamma q log q - p)`` elsewhere.
    """
    x, p, q, positive = _sigmoid_terms(input, target)
    grad = torch.where(positive,
                       -alpha * q.pow(gamma) * (q - gamma * p * F.logsigmoid(x)),
                       -(1 - alpha) * p.pow(gamma) * (gamma * q * F.logsigmoid(-x) - p))  # (N, C)
    row = _row_weight(weight, target, x.size(1))
    grad_input.copy_(grad if isinstance(row, float) else grad * row[:, None])


def _picked(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of the row's class, its log, and whether the row has one (label >= 0), (N,)."""
    p = input.detach().to(compute_dtype(input))  # (N, C)
    p = p.gather(1, target.clamp(min=0)[:, None])[:, 0]  # (N,)
    return p, p.clamp(min=torch.finfo(p.dtype).tiny).log(), target >= 0


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    """``-alpha (1-p)^gamma log p`` of the row's class, into ``output`` (N,).

    Args:
        input: probabilities (N, C), MMCV's wrapper has taken the softmax.
        target: (N,) int64 in [0, C); negative rows are ignored (0).
        weight: (C,) class weights or empty.
    """
    if target.numel() == 0:
        return
    p, log_p, labelled = _picked(input, target)
    loss = -alpha * (1 - p).pow(gamma) * log_p * _row_weight(weight, target, input.size(1))  # (N,)
    output.copy_(torch.where(labelled, loss, torch.zeros_like(loss)))


def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor,
                                grad_input: Tensor, gamma: float, alpha: float) -> None:
    """Fill ``grad_input`` (N, C), the derivative by the logits, and ``buff`` (N,), its factor.

    ``dloss/dx_c = buff * ([c = target] - p_c)`` and ``buff = p dloss/dp = alpha (1-p)^gamma (gamma p log p / (1-p) -
    1)``.
    """
    if target.numel() == 0:
        return
    p, log_p, labelled = _picked(input, target)
    rest = 1 - p  # (N,)
    # p log p / (1 - p) tends to -1 as p tends to 1
    ratio = torch.where(rest > 0, p * log_p / rest.clamp(min=torch.finfo(p.dtype).tiny),
                        -torch.ones_like(p))  # (N,)
    factor = alpha * rest.pow(gamma) * (gamma * ratio - 1)  # (N,)
    factor = torch.where(labelled, factor * _row_weight(weight, target, input.size(1)),
                         torch.zeros_like(factor))  # (N,)
    buff.copy_(factor)
    chosen = target[:, None] == torch.arange(input.size(1), device=input.device)  # (N, C)
    grad_input.copy_(factor[:, None] * (chosen.to(p.dtype) - input.detach().to(p.dtype)))
