"""Hints: a teacher's intermediate feature as regression target (Chen et al. 2017)."""
import torch
from torch import Tensor, nn

from ..arguments import at_least_float32, boolean, comparable, non_negative, one_of
from .reduction import REDUCTIONS, pick_reduction, reduce_loss

NORMS = ('l2', 'l1')
# Below this mean |Z|^p a hint counts as all zero. Real features are far above, squared too.
ZERO_SCALE = 1e-12


def hint_loss(
    guided: Tensor,
    hint: Tensor,
    norm: str = 'l2',
    scale_free: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Mean error between the adapted guided layer V and the teacher's hint layer Z.

    With p = 2 ('l2') or 1 ('l1') and means over all elements (those in ``mask``)::

        L = mean |V - Z|^p                  scale_free=False
        L = mean |V - Z|^p / mean |Z|^p     scale_free=True

    The divisor is detached and is one number for the whole tensor, so the loss is the share of the hint's energy that
    is not explained: 1 for V = 0, unchanged if V and Z are multiplied by one factor, and of one size for every layer
    and teacher. A hint that is all zero has no scale and is compared unscaled. The paper writes the norm without
    normalisation.

    The means are over the batch of one process. With ``scale_free`` the divisor is a statistic of that batch, and four
    images are not the mean of two and two; without it they are, where each has equally many places.

    Args:
        guided: (N, C, H, W), (N, C) or any other shape, after its adapter.
        hint: the same shape, detached.
        norm: 'l2' or 'l1'.
        scale_free: divide by the hint's own mean |Z|^p.
        mask: bool, True where features are compared; the features' shape, ones in places ((N, 1, H, W) leaves out the
            padding of images).

    Returns:
        A scalar, in float32 or float64; 0 where nothing is compared.

    Raises:
        ValueError: shapes that differ, an unknown ``norm``, a ``mask`` that is not bool or does not fit.

    Source: Chen et al. 2017, sec. 3.4.
    """
    error = hint_error(guided, hint, norm, scale_free, mask)
    return reduce_loss(error, avg_factor=_count(error, mask))


def hint_error(
    guided: Tensor, hint: Tensor, norm: str, scale_free: bool, mask: Tensor | None = None
) -> Tensor:
    """The element-wise error of ``hint_loss``, divided by the scale, 0 outside the mask."""
    one_of('norm', norm, NORMS)
    comparable(guided=guided, hint=hint)
    hint = at_least_float32(hint).detach()
    difference = at_least_float32(guided) - hint
    if mask is not None:
        mask = _expand_mask(mask, hint)
        # `where`, not a product: garbage outside the mask (inf, NaN) must not come through
        difference, hint = difference.where(mask, 0.0), hint.where(mask, 0.0)
    error = _power(difference, norm)
    if scale_free:
        scale = reduce_loss(_power(hint, norm), avg_factor=_count(hint, mask))
        error = error / torch.where(scale < ZERO_SCALE, 1.0, scale)
    return error


def _power(tensor: Tensor, norm: str) -> Tensor:
    return tensor.square() if norm == 'l2' else tensor.abs()


def _expand_mask(mask: Tensor, feature: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise ValueError(f'mask must be of dtype bool, found {mask.dtype}; or pass it as weight')
    # as many dimensions, or (N, H, W) would pass for (C, H, W) where N == C
    fits = mask.dim() == feature.dim() and all(
        found in (1, wanted) for found, wanted in zip(mask.shape, feature.shape)
    )
    if not fits:
        raise ValueError(
            f'mask of shape {tuple(mask.shape)} does not fit features of shape '
            f'{tuple(feature.shape)}; give that shape, with ones in places'
        )
    return mask.expand_as(feature)


def _count(feature: Tensor, mask: Tensor | None) -> Tensor | int:
    return feature.numel() if mask is None else mask.expand_as(feature).sum()


class HintLoss(nn.Module):
    """``hint_loss`` with MMDetection's reduction.

    Args:
        norm: 'l2' or 'l1', both in the paper.
        scale_free: divide by the teacher feature's own mean |Z|^p.
        loss_weight: gamma of the paper, 0.5.
        reduction: 'none', 'mean' or 'sum'.
    """

    compares = 'features'

    def __init__(
        self,
        norm: str = 'l2',
        scale_free: bool = True,
        loss_weight: float = 0.5,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.norm = one_of('norm', norm, NORMS)
        self.scale_free = boolean('scale_free', scale_free)
        self.loss_weight = non_negative('loss_weight', loss_weight)
        self.reduction = one_of('reduction', reduction, REDUCTIONS)

    def forward(
        self,
        guided: Tensor,
        hint: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Features of one shape.

        ``weight`` multiplies the errors and changes neither the scale nor what 'mean' divides by; ``mask`` says which
        elements exist: the mean and the scale are taken over them.
        """
        error = hint_error(guided, hint, self.norm, self.scale_free, mask)
        reduction = pick_reduction(self.reduction, reduction_override)
        if avg_factor is None and reduction == 'mean':
            avg_factor = _count(error, mask)
        return self.loss_weight * reduce_loss(error, weight, reduction, avg_factor)

    def extra_repr(self) -> str:
        return f'norm={self.norm!r}, scale_free={self.scale_free}, loss_weight={self.loss_weight}'
