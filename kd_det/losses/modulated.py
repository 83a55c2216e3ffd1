"""Soft labels for binary scores, modulated by how far the student is from the teacher: one formula, many papers."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import at_least_float32, comparable, non_negative, one_of
from .recompute import recomputed
from .reduction import REDUCTIONS, pick_reduction, reduce_loss


def modulated_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    exponent: float,
    temperature: float = 1.0,
    kl: bool = False,
) -> Tensor:
    r"""D(p_t, p_s), times the distance of the two to some power; every element is a two-class problem.

    With p = sigmoid(z / T)::

        L = T^2 D(p_t, p_s) |p_t - p_s|^exponent
        D = -p_t log p_s - (1 - p_t) log(1 - p_s)                              kl=False, cross-entropy
        D = p_t log(p_t / p_s) + (1 - p_t) log((1 - p_t) / (1 - p_s))          kl=True

    ========================================  ========  =====
    soft label (Nguyen et al. 2022)           kl=True   0.5
    BCKD, CrossKD (classes)                   kl=False  1
    quality focal loss with a soft target     kl=False  2
    centerness, objectness                    kl=False  0
    ========================================  ========  =====

    As in the quality focal loss the gradient flows through the modulator too, so cross-entropy and KL have different
    gradients as soon as ``exponent`` is not 0. Where both agree the loss of an exponent above 0 is 0, and so is its
    gradient: KL falls with the square of the distance, faster than the modulator's slope grows; cross-entropy has a
    kink there for an exponent of 1. (Below 1, cross-entropy has an infinite slope there and cannot be trained.)

    Args:
        student_logits: any shape.
        teacher_logits: the same shape, detached.
        exponent: 0 or larger; for cross-entropy 0, or 1 or larger.
        temperature: T > 0.
        kl: divergence instead of cross-entropy.

    Returns:
        The logits' shape, in float32 or float64. Backward needs the logits only, as they came.

    Raises:
        ValueError: shapes or devices that differ, an exponent between 0 and 1 of the cross-entropy.

    Source: Li et al. 2020 (generalized focal loss), eq. 4, with a dense soft target.
    """
    comparable(student_logits=student_logits, teacher_logits=teacher_logits)
    if not kl:
        _check_exponent('exponent', exponent)

    def formula(student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = at_least_float32(student) / temperature, at_least_float32(teacher) / temperature
        # log(1 - sigmoid(z)) = logsigmoid(-z), exact for large z too
        divergence = _terms(F.logsigmoid(student), F.logsigmoid(teacher), kl)
        divergence = divergence + _terms(F.logsigmoid(-student), F.logsigmoid(-teacher), kl)
        if exponent == 0:
            return temperature**2 * divergence
        return temperature**2 * divergence * modulator((teacher.sigmoid() - student.sigmoid()).abs(), exponent)

    return recomputed(formula, student_logits, teacher_logits.detach())


def modulator(distance: Tensor, exponent: float) -> Tensor:
    """distance^exponent; 0 with slope 0 at distance 0, where autograd would say infinity."""
    agree = distance == 0
    # the inner `where` keeps the infinite slope out of the backward pass: 0 * inf is NaN
    return torch.where(agree, 0.0, torch.where(agree, 1.0, distance).pow(exponent))


def _terms(student_log_prob: Tensor, teacher_log_prob: Tensor, kl: bool) -> Tensor:
    """p_t (log p_t - log p_s), or -p_t log p_s, element by element."""
    reference = teacher_log_prob if kl else 0.0
    return teacher_log_prob.exp() * (reference - student_log_prob)


def _check_exponent(name: str, value: float) -> float:
    if 0 < value < 1:
        raise ValueError(f'{name} must be 0, or 1 or larger, found {value!r}: cross-entropy times a root of the '
                         'distance has an infinite slope where both agree; FocalKLLoss has gamma=0.5')
    return value


class ModulatedBCELoss(nn.Module):
    """BCE(s, sigmoid(t)) |sigmoid(t) - sigmoid(s)|^beta: the class term of BCKD and CrossKD (:func:`modulated_loss`).

    Over all anchors of all levels, divided by the positives of the student's assigner, averaged over ranks and at least
    1 (``avg_factor``); a weight of 0 takes out what the assigner ignores. Levels without positives take part.

    Args:
        beta: exponent of the modulator, 1 in both papers; 0 is plain binary cross-entropy.
        loss_weight: 1 in BCKD and CrossKD, 0.4 in CrossKD for FCOS.
        reduction: 'none', 'mean' or 'sum'.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection", ICCV
    2023; Wang et al., "CrossKD", CVPR 2024.
    """

    compares = 'scores'

    def __init__(self, beta: float = 1.0, loss_weight: float = 1.0, reduction: str = 'mean') -> None:
        super().__init__()
        self.beta = _check_exponent('beta', non_negative('beta', beta))
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
        """Logits of one shape; ``weight`` of that shape or of its leading dimensions, (P,) for (P, C).

        'mean' without ``avg_factor`` is over all elements.
        """
        loss = modulated_loss(student_logits, teacher_logits, self.beta)
        reduction = pick_reduction(self.reduction, reduction_override)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def extra_repr(self) -> str:
        return f'beta={self.beta}, loss_weight={self.loss_weight}'
