"""Teacher-bounded box regression (Chen et al. 2017): the teacher says when, the truth where."""
import torch
from torch import Tensor, nn

from ..arguments import at_least_float32, comparable, non_negative, one_of, positive
from .reduction import REDUCTIONS, align_weight, pick_reduction, reduce_loss

INNER_LOSSES = ('l2', 'l1', 'smooth_l1')


def teacher_bounded_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    margin: float = 0.0,
    inner: str = 'l2',
    beta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    r"""A box regression loss for those boxes only that the teacher regresses better.

    With e(R) = sum_k inner(R_k - y_k) over the four coordinates, per box::

        L_n = e(R_s)   if e(R_s) + m > e(R_t), else 0

    The gate carries no gradient: the pull is towards the ground truth y, never the teacher's box. With m = 0 a student
    exactly as good as its teacher is left alone (strict inequality).

    ``weight`` multiplies each coordinate's error in the loss. The gate compares UNWEIGHTED errors, over the coordinates
    of non-zero weight: a weight says how much a box matters, not who regressed it better, and it must not rescale the
    margin; but a coordinate that is not trained has no meaningful target.

    Args:
        student: (N, 4) encoded deltas (or boxes), one box a row.
        teacher: (N, 4), in the student's encoding, detached.
        target: (N, 4), the ground truth y in the same encoding, detached.
        margin: m >= 0, in the unit of e (squared for 'l2'). Not given in the paper.
        inner: 'l2' d^2, 'l1' |d|, 'smooth_l1' d^2 / (2 beta) below beta and |d| - beta / 2 above.
        beta: of 'smooth_l1'.
        weight: (N,) or (N, 4), 0 or larger.

    Returns:
        (N,), in float32 or float64. What is not a number in the student, the teacher or the target stays visible as
        NaN.

    Raises:
        ValueError: shapes that differ or are not (N, 4), an unknown ``inner``.

    Source: Chen et al. 2017, sec. 3.3 (nu is the module's ``loss_weight``).
    """
    one_of('inner', inner, INNER_LOSSES)
    comparable(student=student, teacher=teacher, target=target)
    if student.dim() != 2 or student.shape[1] != 4:
        raise ValueError(
            f'boxes must be (N, 4), found {tuple(student.shape)}; '
            'of a class-aware head pick the box of the target class first'
        )
    target = at_least_float32(target).detach()
    student_error = _inner(at_least_float32(student) - target, inner, beta)           # (N, 4)
    teacher_error = _inner(at_least_float32(teacher).detach() - target, inner, beta)  # (N, 4)

    loss, gated = student_error, student_error.detach()
    if weight is not None:
        weight = align_weight(weight, student_error)                                  # (N, 1 | 4)
        loss = student_error * weight
        gated = torch.where(weight != 0, gated, 0.0)
        teacher_error = torch.where(weight != 0, teacher_error, 0.0)
    teacher_error = teacher_error.sum(dim=1)                                          # (N,)
    # "not (<=)" instead of ">": a NaN opens the gate and shows up, instead of counting as good
    is_open = ~(gated.sum(dim=1) + margin <= teacher_error)                           # (N,)
    loss = torch.where(is_open, loss.sum(dim=1), 0.0)                                 # (N,)
    return torch.where(teacher_error.isnan(), teacher_error, loss)


def _inner(difference: Tensor, inner: str, beta: float) -> Tensor:
    if inner == 'l2':
        return difference.square()
    distance = difference.abs()
    if inner == 'l1':
        return distance
    return torch.where(distance < beta, distance.square() / (2 * beta), distance - beta / 2)


class TeacherBoundedLoss(nn.Module):
    """``teacher_bounded_loss`` with MMDetection's reduction.

    Args:
        inner: 'l2' (the paper's), 'l1' or 'smooth_l1'.
        margin: m. The paper does not give it; 0 is ours.
        beta: of 'smooth_l1'.
        loss_weight: nu of the paper, 0.5.
        reduction: 'none', 'mean' or 'sum'.
    """

    compares = 'boxes'

    def __init__(
        self,
        inner: str = 'l2',
        margin: float = 0.0,
        beta: float = 1.0,
        loss_weight: float = 0.5,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.inner = one_of('inner', inner, INNER_LOSSES)
        self.margin = non_negative('margin', margin)
        self.beta = positive('beta', beta)
        self.loss_weight = non_negative('loss_weight', loss_weight)
        self.reduction = one_of('reduction', reduction, REDUCTIONS)

    def forward(
        self,
        pred: Tensor,
        teacher_pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Boxes (N, 4) each, ``weight`` (N,) or (N, 4). A scalar, or (N,) with reduction 'none'.

        'mean' without ``avg_factor`` is over boxes, where MMDetection's box losses average over coordinates.
        """
        loss = teacher_bounded_loss(
            pred, teacher_pred, target, self.margin, self.inner, self.beta, weight
        )
        reduction = pick_reduction(self.reduction, reduction_override)
        return self.loss_weight * reduce_loss(loss, None, reduction, avg_factor)

    def extra_repr(self) -> str:
        return f'inner={self.inner!r}, margin={self.margin}, loss_weight={self.loss_weight}'
