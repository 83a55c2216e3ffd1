"""Box mimicry: the teacher's box as regression target, which the bounded loss is compared with."""
from torch import Tensor, nn

from ..arguments import at_least_float32, comparable, non_negative, one_of
from .reduction import REDUCTIONS, align_weight, pick_reduction, reduce_loss


def box_mimicry_loss(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Squared distance to the teacher's box: L_n = sum_k w_k (R_s,k - R_t,k)^2.

    Args:
        student: (N, 4) encoded deltas (or boxes), one box a row.
        teacher: (N, 4), in the student's encoding, detached.
        weight: (N,) or (N, 4).

    Returns:
        (N,), in float32 or float64.

    Raises:
        ValueError: shapes that differ or are not (N, 4).

    Source: column L2 of Chen et al. 2017, table 4, where it falls below the plain student.
    """
    comparable(student=student, teacher=teacher)
    if student.dim() != 2 or student.shape[1] != 4:
        raise ValueError(
            f'boxes must be (N, 4), found {tuple(student.shape)}; '
            'of a class-aware head pick the box of the target class first'
        )
    error = (at_least_float32(student) - at_least_float32(teacher).detach()).square()  # (N, 4)
    if weight is not None:
        error = error * align_weight(weight, error)
    return error.sum(dim=1)                                                            # (N,)


class BoxMimicryLoss(nn.Module):
    """``box_mimicry_loss`` with MMDetection's reduction; in place of ``TeacherBoundedLoss``.

    Args:
        loss_weight: factor of the whole term; 0.5 as the bounded loss's.
        reduction: 'none', 'mean' or 'sum'.
    """

    compares = 'boxes'

    def __init__(self, loss_weight: float = 0.5, reduction: str = 'mean') -> None:
        super().__init__()
        self.loss_weight = non_negative('loss_weight', loss_weight)
        self.reduction = one_of('reduction', reduction, REDUCTIONS)

    def forward(
        self,
        pred: Tensor,
        teacher_pred: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """As ``TeacherBoundedLoss.forward``; the ground truth ``target`` takes no part."""
        loss = box_mimicry_loss(pred, teacher_pred, weight)
        reduction = pick_reduction(self.reduction, reduction_override)
        return self.loss_weight * reduce_loss(loss, None, reduction, avg_factor)

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight}'
