"""PKD: features compared by their Pearson correlation (Cao et al. 2022)."""
import torch
from torch import Tensor, nn

from .arguments import at_least_float32, non_negative, same_shape

EPSILON = 1e-6


def pkd_loss(guided: Tensor, hint: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Half the mean squared error between features standardised per channel over batch and space::

        z(X)_c = (X_c - mean(X_c)) / (std(X_c) + 1e-6)
        L = mean (z(V) - z(Z))^2 / 2  =  1 - (1 / C) sum_c corr(V_c, Z_c)

    Scale and offset of a channel play no part, so a teacher of another kind can teach. Statistics are those of the batch
    on this process: the value depends on the batch's composition, is noisier on few images, and four images are not the
    mean of two and two. They are not synchronised over ranks, as in the published runs.

    Args:
        guided: V, (N, C, H, W) or (N, C), after its adapter.
        hint: Z, the same shape, detached.
        mask: bool, (N, 1, H, W), True where features are compared; None: everywhere.

    Returns:
        A scalar, in float32 or float64.

    Raises:
        ValueError: shapes that differ.

    Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
    NeurIPS 2022, eq. 4.
    """
    same_shape(guided=guided, hint=hint)
    rows = [_rows(at_least_float32(one), mask) for one in (guided, hint.detach())]  # (C, M) each
    if rows[0].shape[1] == 0:
        return rows[0].sum() * 0.0
    ours, theirs = (_standardised(one) for one in rows)
    return (ours - theirs).square().mean() / 2


def _rows(feature: Tensor, mask: Tensor | None) -> Tensor:
    """(C, M): each channel's values over batch and space."""
    rows = feature.transpose(0, 1).flatten(1)
    return rows if mask is None else rows[:, mask.flatten()]


def _standardised(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(1, keepdim=True)
    deviation = centred.square().mean(1, keepdim=True)
    # a constant channel has no direction: the root's slope at 0 is infinite
    deviation = torch.where(deviation > 0, deviation, 1.0).sqrt() * (deviation > 0)
    return centred / (deviation + EPSILON)


class PKDLoss(nn.Module):
    """`pkd_loss`, weighted; its pyramid levels are summed, as in the paper.

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
        """(N, C, H, W) of both sides -> a scalar."""
        return self.loss_weight * pkd_loss(guided, hint, mask)

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight}'
