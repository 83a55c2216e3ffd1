"""How an element-wise loss becomes a number, by MMDetection's conventions."""
import math

import torch
from torch import Tensor

from ..arguments import one_of

REDUCTIONS = ('none', 'mean', 'sum')


def reduce_loss(
    loss: Tensor,
    weight: Tensor | None = None,
    reduction: str = 'mean',
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Weight, then reduce: ``none`` w * l, ``sum`` sum(w * l), ``mean`` sum(w * l) / avg_factor.

    Without ``avg_factor`` the mean is over ALL elements, those of weight 0 too. An empty loss gives a zero that still
    hangs on the graph, where ``Tensor.mean`` would give NaN.

    Args:
        loss: any shape.
        weight: the shape of ``loss``, or its leading dimensions only ((N,) for a loss (N, C)), or the same number of
            dimensions with ones in it ((N, 1, H, W) for (N, C, H, W)).
        reduction: 'none', 'mean' or 'sum'.
        avg_factor: what 'mean' divides by. Ignored by 'none'.

    Raises:
        ValueError: unknown ``reduction``; ``avg_factor`` with 'sum', or negative or not finite; a ``weight`` that does
            not fit ``loss``.
    """
    one_of('reduction', reduction, REDUCTIONS)
    if avg_factor is not None and reduction == 'sum':
        raise ValueError(
            f"avg_factor={avg_factor!r} has no meaning with reduction='sum'; "
            "use reduction='mean', or leave avg_factor out"
        )
    if weight is not None:
        loss = loss * align_weight(weight, loss)
    if reduction == 'none':
        return loss
    if reduction == 'sum':
        return loss.sum()
    return loss.sum() / _divisor(loss, avg_factor)


def pick_reduction(reduction: str, override: str | None) -> str:
    """The reduction of one call: the module's own unless the caller overrides it."""
    if override is None:
        return reduction
    return one_of('reduction_override', override, REDUCTIONS)


def align_weight(weight: Tensor, loss: Tensor) -> Tensor:
    """``weight`` in the dtype of ``loss`` and with as many dimensions, ready to be multiplied.

    Plain broadcasting aligns the LAST dimensions, so a weight per row would be taken for one per class where N == C;
    here a shorter weight always belongs to the leading dimensions.
    """
    shape = tuple(weight.shape) + (1,) * (loss.dim() - weight.dim())
    fits = len(shape) == loss.dim() and all(
        found in (1, wanted) for found, wanted in zip(shape, loss.shape)
    )
    if not fits or (weight.dim() < loss.dim() and weight.shape != loss.shape[: weight.dim()]):
        raise ValueError(
            f'weight of shape {tuple(weight.shape)} does not fit a loss of shape '
            f'{tuple(loss.shape)}; give that shape, its leading dimensions, or ones in places'
        )
    return weight.to(loss.dtype).reshape(shape)


def _divisor(loss: Tensor, avg_factor: float | Tensor | None) -> float | Tensor:
    # Never 0: a batch without positives has a zero loss and a zero avg_factor.
    floor = torch.finfo(torch.float32).eps
    if avg_factor is None:
        return max(loss.numel(), 1)
    if isinstance(avg_factor, Tensor):  # its value stays unread: reading it would stall a GPU
        return avg_factor.to(loss.dtype).clamp(min=floor)
    if not math.isfinite(avg_factor) or avg_factor < 0:
        raise ValueError(f'avg_factor must be finite and 0 or larger, found {avg_factor!r}')
    return max(avg_factor, floor)
