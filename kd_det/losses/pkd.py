"""PKD: features compared by their Pearson correlation (Cao et al. 2022)."""
from torch import Tensor, nn

from ..arguments import comparable, non_negative
from .features import channels_first, places, standardised
from .recompute import recomputed


def pkd_loss(guided: Tensor, hint: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Half the mean squared error between features standardised per channel over batch and space::

        z(X)_c = (X_c - mean(X_c)) / (std(X_c) + 1e-6)
        L = mean (z(V) - z(Z))^2 / 2  =  1 - (1 / C) sum_c corr(V_c, Z_c)

    Scale and offset of a channel play no part, so a teacher of another kind can teach. Statistics are those of the batch
    on this process: the value depends on the batch's composition, is noisier on few images, and four images are not the
    mean of two and two. They are not synchronised over ranks, as in the published runs. A channel without variation, on
    either side, counts as all 0.

    Args:
        guided: V, maps (N, C, H, W), tokens (N, L, C) or vectors (N, C), after its adapter.
        hint: Z, the same shape, detached.
        mask: bool, (N, 1, H, W) of maps, True where features are compared; None: everywhere.

    Returns:
        A scalar, in float32 or float64. Backward needs the features only, as they came.

    Raises:
        ValueError: shapes or devices that differ, a mask that is not bool or does not fit.

    Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
    NeurIPS 2022, eq. 4.
    """
    comparable(guided=guided, hint=hint)
    mask = places(mask, guided)                                             # (N, M)
    ours, theirs = channels_first(guided), channels_first(hint.detach())    # (C, N, M)
    count = max(ours.shape[1] * ours.shape[2], 1) if mask is None else mask.sum().clamp(min=1)

    def formula(ours: Tensor, theirs: Tensor) -> Tensor:
        return (standardised(ours, mask) - standardised(theirs, mask)).square().sum((1, 2)) / (2 * count)

    errors = recomputed(formula, ours, theirs)                              # (C,)
    return errors.sum() / max(len(errors), 1)


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
