"""Logit matching: soft targets at infinite temperature (Caruana 2006; Hinton et al. 2015)."""
from torch import Tensor, nn

from ..arguments import at_least_float32, boolean, comparable, non_negative, one_of
from .reduction import REDUCTIONS, pick_reduction, reduce_loss


def logit_matching_loss(
    student_logits: Tensor, teacher_logits: Tensor, use_sigmoid: bool = False
) -> Tensor:
    r"""Squared error of the (centred) logits, the T -> infinity limit of soft targets.

    Softmax, d = z_s - z_t (a softmax ignores what all of a row's logits share)::

        L_n = 1 / (2 C) sum_c (d_c - mean d)^2

    Sigmoid::

        L_n = 1 / 8 sum_c d_c^2

    The factors make it the limit of ``soft_target_loss(..., kl=True)`` with weights 1: to second order KL(p_t || p_s)
    is half the p-weighted variance of d / T. At infinite T p is 1 / C, or p (1 - p) = 1 / 4 for a sigmoid, and the
    loss's T^2 cancels the 1 / T^2.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C), detached.
        use_sigmoid: which of the two forms.

    Returns:
        (N,), in float32 or float64.

    Raises:
        ValueError: shapes that differ or are not (N, C), a softmax over one column.

    Source: Hinton et al. 2015, sec. 2.1.
    """
    comparable(student_logits=student_logits, teacher_logits=teacher_logits)
    if student_logits.dim() != 2:
        raise ValueError(f'logits must be (N, C), found {tuple(student_logits.shape)}')
    num_columns = student_logits.shape[1]
    if not use_sigmoid and num_columns < 2:
        raise ValueError(
            f'centred logits of {num_columns} column are always 0; '
            'a head with one score per box needs use_sigmoid=True'
        )
    difference = at_least_float32(student_logits) - at_least_float32(teacher_logits).detach()
    if use_sigmoid:
        return difference.square().sum(dim=1) / 8                       # (N,)
    centred = difference - difference.mean(dim=1, keepdim=True)         # (N, C)
    return centred.square().sum(dim=1) / (2 * num_columns)              # (N,)


class LogitMatchingLoss(nn.Module):
    """``logit_matching_loss`` with MMDetection's reduction.

    Args:
        use_sigmoid: the head's scores are binary problems.
        loss_weight: factor of the whole term.
        reduction: 'none', 'mean' or 'sum'.
    """

    compares = 'scores'

    def __init__(
        self, use_sigmoid: bool = False, loss_weight: float = 1.0, reduction: str = 'mean'
    ) -> None:
        super().__init__()
        self.use_sigmoid = boolean('use_sigmoid', use_sigmoid)
        self.loss_weight = non_negative('loss_weight', loss_weight)
        self.reduction = one_of('reduction', reduction, REDUCTIONS)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Logits (N, C) of both, ``weight`` (N,). A scalar, or (N,) with reduction 'none'."""
        loss = logit_matching_loss(student_logits, teacher_logits, self.use_sigmoid)
        reduction = pick_reduction(self.reduction, reduction_override)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def extra_repr(self) -> str:
        return f'use_sigmoid={self.use_sigmoid}, loss_weight={self.loss_weight}'
