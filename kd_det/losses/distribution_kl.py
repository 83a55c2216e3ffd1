"""Localisation distillation: the teacher's distribution over an edge's place (Zheng et al. 2022)."""
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import at_least_float32, comparable, non_negative, one_of, positive
from .recompute import recomputed
from .reduction import REDUCTIONS, pick_reduction, reduce_loss


def distribution_kl_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 10.0) -> Tensor:
    r"""KL between the discretised distributions of a box's four edges, as GFL heads predict them.

    With p = softmax(z / T) over the B bins of an edge::

        L_n = T^2 / (4 B) sum over edges and bins of p_t log(p_t / p_s)

    The mean over bins instead of their sum is the released code's (and ``KnowledgeDistillationKLDivLoss``'s), with
    which its weights go.

    Args:
        student_logits: (P, 4, B), one row per edge, before the softmax.
        teacher_logits: the same shape, detached.
        temperature: T > 0; 10 in LD, 1 in CrossKD.

    Returns:
        (P,), in float32 or float64. Backward needs the logits only, as they came.

    Raises:
        ValueError: shapes or devices that differ, or shapes that are not (P, 4, B) with B >= 2.

    Source: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, eq. 4.
    """
    comparable(student_logits=student_logits, teacher_logits=teacher_logits)
    shape = tuple(student_logits.shape)
    if len(shape) != 3 or shape[1] != 4 or shape[2] < 2:
        raise ValueError(f'distributions must be (P, 4, B), a row of B >= 2 bins for each edge, found {shape}; '
                         'reshape(-1, 4, reg_max + 1) of a GFL head\'s prediction, anchors first')

    def formula(student: Tensor, teacher: Tensor) -> Tensor:
        student_log_prob = F.log_softmax(at_least_float32(student) / temperature, dim=2)     # (p, 4, B)
        teacher_log_prob = F.log_softmax(at_least_float32(teacher) / temperature, dim=2)     # (p, 4, B)
        return temperature**2 * (teacher_log_prob.exp() * (teacher_log_prob - student_log_prob)).mean((1, 2))

    return recomputed(formula, student_logits, teacher_logits.detach())


class DistributionKLLoss(nn.Module):
    """:func:`distribution_kl_loss` with MMDetection's reduction: LD's main and valuable region, CrossKD's boxes on GFL.

    **Normaliser.** The released LD, and MMDetection's ``LDHead``, add up what one GPU's anchors give and divide by
    nothing, so the term grows with the images per GPU. Here the caller says what divides (``avg_factor``):

    - N / 2 for N images makes the released setting, weight 0.25 and 2 images per GPU, out of any number of images; and
      four images are the mean of two and two.
    - The sum of the weights, as CrossKD divides (weight 4, T 1).
    - Positives, averaged over ranks: 0.25 then stands for 0.25 times the positives on 2 images.

    Args:
        temperature: T; 10 in LD, 1 in CrossKD.
        loss_weight: 0.25 for GFL in LD, for the normaliser N / 2.
        reduction: 'none', 'mean' or 'sum'.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Zheng et al. 2022; for the constants its released configurations.
    """

    compares = 'distributions'

    def __init__(self, temperature: float = 10.0, loss_weight: float = 0.25, reduction: str = 'mean') -> None:
        super().__init__()
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
        """Logits (P, 4, B) of both, ``weight`` (P,): in LD's main region the student's best class score, in its
        valuable region the IoU. A scalar, or (P,) with reduction 'none'.
        """
        loss = distribution_kl_loss(student_logits, teacher_logits, self.temperature)
        reduction = pick_reduction(self.reduction, reduction_override)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def extra_repr(self) -> str:
        return f'temperature={self.temperature}, loss_weight={self.loss_weight}'
