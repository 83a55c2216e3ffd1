"""Cosine distance of feature vectors (Iscen et al. 2021)."""
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import at_least_float32, comparable, non_negative
from .reduction import reduce_loss


def cosine_loss(guided: Tensor, hint: Tensor, avg_factor: float | Tensor | None = None) -> Tensor:
    """Mean over rows of 1 - cos(v, z); 0 on the graph where there is no row.

    Args:
        guided: v, (R, C), after its adapter.
        hint: z, (R, C), detached.
        avg_factor: what divides the sum; None: the number of rows.

    Source: Iscen et al., "Class-Balanced Distillation for Long-Tailed Visual Recognition", BMVC 2021, eq. 3.
    """
    comparable(guided=guided, hint=hint)
    if guided.dim() != 2:
        raise ValueError(f'vectors (R, C) are expected, found {tuple(guided.shape)}')
    distances = 1 - F.cosine_similarity(at_least_float32(guided), at_least_float32(hint).detach(), dim=1)  # (R,)
    return reduce_loss(distances, avg_factor=avg_factor)


class CosineLoss(nn.Module):
    """:func:`cosine_loss`, weighted."""

    compares = 'features'

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = non_negative('loss_weight', loss_weight)

    def forward(self, guided: Tensor, hint: Tensor, avg_factor: float | Tensor | None = None) -> Tensor:
        """Vectors of one shape -> a scalar."""
        return self.loss_weight * cosine_loss(guided, hint, avg_factor)

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight}'
