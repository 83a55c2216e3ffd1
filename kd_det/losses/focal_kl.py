"""Focal KL: soft labels over all anchors, the agreeing ones fading out (Nguyen et al. 2022)."""
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import at_least_float32, boolean, comparable, non_negative, one_of, positive
from .modulated import modulated_loss, modulator
from .recompute import recomputed
from .reduction import REDUCTIONS, pick_reduction, reduce_loss


def focal_kl_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    gamma: float = 0.5,
    temperature: float = 1.0,
    use_sigmoid: bool = True,
) -> Tensor:
    r"""KL(p_t || p_s), modulated by how far the student is from the teacher.

    Sigmoid, every element a two-class problem, p = sigmoid(z / T): :func:`modulated_loss` with ``kl=True``::

        L = T^2 KL(p_t || p_s) |p_t - p_s|^gamma
        KL(p || q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q))

    Softmax, p = softmax(z / T), the total variation in the modulator's place::

        L_n = T^2 [sum_c p_t(c) log(p_t(c) / p_s(c))] [1/2 sum_c |p_t(c) - p_s(c)|]^gamma

    which for two classes is the sigmoid's formula. As in the focal loss, the gradient flows through the modulator too.
    Where p_t = p_s that factor's slope is infinite for gamma < 1, but KL falls with the square of the distance: the
    gradient is 0 there, and is exactly 0 here.

    Args:
        student_logits: (N, C), or any shape for the sigmoid form, e.g. (N,) of an IoU branch.
        teacher_logits: the same shape, detached.
        gamma: >= 0; 0 is plain KL.
        temperature: T > 0. The paper has none (T = 1).
        use_sigmoid: which of the two forms.

    Returns:
        Sigmoid: the logits' shape. Softmax: (N,). In float32 or float64. Backward needs the logits only, as they came.

    Raises:
        ValueError: shapes or devices that differ, softmax logits that are not (N, C) with C >= 2.

    Source: Nguyen et al. 2022 (arXiv 2108.10520), the soft-label baseline.
    """
    if use_sigmoid:
        return modulated_loss(student_logits, teacher_logits, gamma, temperature, kl=True)
    comparable(student_logits=student_logits, teacher_logits=teacher_logits)
    if student_logits.dim() != 2 or student_logits.shape[1] < 2:
        raise ValueError(f'softmax logits must be (N, C) with C >= 2, found {tuple(student_logits.shape)}; '
                         'a head with binary scores needs use_sigmoid=True')

    def formula(student: Tensor, teacher: Tensor) -> Tensor:
        student_log_prob = F.log_softmax(at_least_float32(student) / temperature, dim=1)       # (n, C)
        teacher_log_prob = F.log_softmax(at_least_float32(teacher) / temperature, dim=1)       # (n, C)
        teacher_prob = teacher_log_prob.exp()
        divergence = (teacher_prob * (teacher_log_prob - student_log_prob)).sum(1)             # (n,)
        distance = (teacher_prob - student_log_prob.exp()).abs().sum(1) / 2                    # (n,)
        return temperature**2 * divergence * modulator(distance, gamma)

    return recomputed(formula, student_logits, teacher_logits.detach())


class FocalKLLoss(nn.Module):
    """:func:`focal_kl_loss` with MMDetection's reduction.

    Args:
        gamma: exponent of the modulator, 0.5 in the paper.
        use_sigmoid: binary problems, or one softmax a row.
        temperature: T.
        loss_weight: 10 where soft labels are used alone, 2 beside LAD (SoLAD).
        reduction: 'none', 'mean' or 'sum'.
    """

    compares = 'scores'

    def __init__(
        self,
        gamma: float = 0.5,
        use_sigmoid: bool = True,
        temperature: float = 1.0,
        loss_weight: float = 10.0,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.gamma = non_negative('gamma', gamma)
        self.use_sigmoid = boolean('use_sigmoid', use_sigmoid)
        self.temperature = positive('temperature', temperature)
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
        """Logits of one shape; ``weight`` (N,), or (N, C) for the sigmoid form.

        'mean' without ``avg_factor`` is over all elements of the sigmoid form.
        """
        loss = focal_kl_loss(student_logits, teacher_logits, self.gamma, self.temperature, self.use_sigmoid)
        reduction = pick_reduction(self.reduction, reduction_override)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def extra_repr(self) -> str:
        return (f'gamma={self.gamma}, use_sigmoid={self.use_sigmoid}, temperature={self.temperature}, '
                f'loss_weight={self.loss_weight}')
