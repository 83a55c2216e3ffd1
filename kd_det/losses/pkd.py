"""PKD: features compared by their Pearson correlation (Cao et al. 2022)."""
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..arguments import at_least_float32, comparable, non_negative
from .features import EPSILON, centred, channels_first, places
from .recompute import rows_at_a_time


def pkd_loss(guided: Tensor, hint: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Half the mean squared error between features standardised per channel over batch and space::

        z(X)_c = (X_c - mean(X_c)) / (std(X_c) + 1e-6)
        L = mean (z(V) - z(Z))^2 / 2  =  1 - (1 / C) sum_c corr(V_c, Z_c)

    Scale and offset of a channel play no part, so a teacher of another kind can teach. Statistics are those of the
    batch on this process: the value depends on the batch's composition, is noisier on few images, and four images are
    not the mean of two and two. They are not synchronised over ranks, as in the published runs. A channel without
    variation, on either side, counts as all 0.

    Args:
        guided: V, maps (N, C, H, W), tokens (N, L, C) or vectors (N, C), after its adapter.
        hint: Z, the same shape, detached.
        mask: bool, (N, 1, H, W) of maps, (N, L, 1) of tokens, True where features are compared; None: everywhere.

    Returns:
        A scalar, in float32 or float64. Backward needs the features only, as they came.

    Raises:
        ValueError: shapes or devices that differ, a mask that is not bool or does not fit.

    Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
    NeurIPS 2022, eq. 4.
    """
    comparable(guided=guided, hint=hint)
    mask = places(mask, guided)                                             # (N, M)
    errors = _Correlation.apply(channels_first(guided), channels_first(hint.detach()), mask)  # (C,)
    return errors.sum() / max(len(errors), 1)


class _Correlation(Function):
    """Half the squared distance of standardised channels, from their variances v, w and covariance u::

        L = (a^2 v + b^2 w) / 2 - a b u,   a = 1 / (sqrt(v) + 1e-6), b = 1 / (sqrt(w) + 1e-6)
        dL / dV_i = (a^2 - a^2 (a v - b u) / sqrt(v)) / n * (V_i - mean V) - a b / n * (Z_i - mean Z)

    so that backward is P V + Q Z + R with three numbers for each channel.
    """

    @staticmethod
    def forward(ctx, ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
        """(C, N, M) twice, bool (N, M) or None -> (C,)."""
        errors, slopes = zip(*(_correlated(*rows, mask) for rows in rows_at_a_time(ours, theirs)))
        ctx.save_for_backward(ours, theirs, mask, torch.cat(slopes, 1))
        return torch.cat(errors)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        ours, theirs, mask, slopes = ctx.saved_tensors
        result = torch.empty_like(ours)                                     # (C, N, M)
        slopes = (slopes * gradient)[..., None, None].transpose(0, 1)       # (C, 3, 1, 1)
        for out, one, other, (own, cross, level) in ((out, one, other, part.unbind(1)) for out, one, other, part in
                                                     rows_at_a_time(result, ours, theirs, slopes)):
            found = torch.addcmul(level, at_least_float32(one), own).addcmul_(at_least_float32(other), cross)
            out.copy_(found if mask is None else found.where(mask, 0.0))
        return result, None, None


def _correlated(ours: Tensor, theirs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(C, N, M) twice -> the distances (C,), and P, Q, R of their gradients (3, C)."""
    one, other = (centred(channels, mask) for channels in (ours, theirs))
    a, b = (torch.where(side.varies, 1 / (side.deviation + EPSILON), 0.0) for side in (one, other))
    covariance = (one.values * other.values).sum((1, 2)) / one.count
    errors = (a * a * one.variance + b * b * other.variance) / 2 - a * b * covariance
    own = (a * a - a * a * (a * one.variance - b * covariance) / one.deviation) / one.count
    cross = -a * b / one.count
    return errors, torch.stack([own, cross, -own * one.mean - cross * other.mean])


class PKDLoss(nn.Module):
    """:func:`pkd_loss`, weighted; its pyramid levels are summed, as in the paper.

    Args:
        loss_weight: 6 for Faster R-CNN R50 <- R101 and RetinaNet <- Mask R-CNN-Swin, 10 for RetinaNet <- RetinaNet-X101
            or FCOS-X101 and for RepPoints, each over the neck's first four levels.
    """

    compares = 'features'
    sum_levels = True

    def __init__(self, loss_weight: float = 6.0) -> None:
        super().__init__()
        self.loss_weight = non_negative('loss_weight', loss_weight)

    def forward(self, guided: Tensor, hint: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features of one shape -> a scalar."""
        return self.loss_weight * pkd_loss(guided, hint, mask)

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight}'
