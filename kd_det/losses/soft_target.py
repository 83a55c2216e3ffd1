"""Soft targets: the teacher's class probabilities as labels (Hinton 2015; Chen et al. 2017)."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import at_least_float32, boolean, comparable, non_negative, one_of, positive
from .reduction import REDUCTIONS, pick_reduction, reduce_loss


def soft_target_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    class_weight: Tensor | None = None,
    temperature: float = 1.0,
    use_sigmoid: bool = False,
    background_weight: float = 1.0,
    kl: bool = False,
) -> Tensor:
    r"""Weighted cross-entropy between the teacher's and the student's class probabilities.

    Softmax, the background being the LAST column, p = softmax(z / T)::

        L_n = -T^2 sum_c w_c p_t(c) log p_s(c)

    Sigmoid, where every column is a two-class problem with background probability 1 - p, p = sigmoid(z / T)::

        L_n = -T^2 sum_c [w_c p_t(c) log p_s(c) + w_bg (1 - p_t(c)) log(1 - p_s(c))]

    With ``kl`` the teacher's own weighted cross-entropy is subtracted: log p_s becomes log p_s - log p_t. The gradient
    is the same and the loss is 0 where student and teacher agree. T^2 keeps the gradient's scale, since soft gradients
    shrink as 1 / T^2.

    Unequal weights move the optimum to p_s(c) ~ w_c p_t(c), as in the paper: a student equal to the teacher then has a
    gradient towards the heavier classes, and ``kl`` can be negative.

    Args:
        student_logits: (N, C) before softmax or sigmoid. Softmax: C - 1 object classes and the background.
        teacher_logits: (N, C), detached.
        class_weight: one weight for each OBJECT class ((C - 1,) for softmax, (C,) for sigmoid). None: ones.
        temperature: T > 0.
        use_sigmoid: which of the two forms.
        background_weight: w of the background (1.5 in the paper).
        kl: divergence instead of cross-entropy.

    Returns:
        (N,), in float32 or float64.

    Raises:
        ValueError: shapes that differ or are not (N, C), a softmax over one column, a ``class_weight`` of another
            length.

    Source: Hinton et al. 2015, sec. 2; Chen et al. 2017, sec. 3.2 (weights, T = 1).
    """
    comparable(student_logits=student_logits, teacher_logits=teacher_logits)
    _check_layout(student_logits, use_sigmoid)
    student = at_least_float32(student_logits) / temperature           # (N, C)
    teacher = at_least_float32(teacher_logits).detach() / temperature  # (N, C)
    objects = _object_weights(student, class_weight, use_sigmoid)      # (C,) or (C - 1,)

    if use_sigmoid:
        terms = objects * _cross_entropy_terms(F.logsigmoid(student), F.logsigmoid(teacher), kl)
        # log(1 - sigmoid(z)) = logsigmoid(-z), exact for large z too
        terms = terms + background_weight * _cross_entropy_terms(
            F.logsigmoid(-student), F.logsigmoid(-teacher), kl
        )                                                              # (N, C)
    else:
        weight = F.pad(objects, (0, 1), value=background_weight)       # (C,)
        terms = weight * _cross_entropy_terms(
            F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1), kl
        )                                                              # (N, C)
    return temperature**2 * terms.sum(dim=1)                           # (N,)


def _cross_entropy_terms(student_log_prob: Tensor, teacher_log_prob: Tensor, kl: bool) -> Tensor:
    """-p_t log p_s, or p_t (log p_t - log p_s), element by element."""
    teacher_prob = teacher_log_prob.exp()
    if kl:
        return teacher_prob * (teacher_log_prob - student_log_prob)
    return -teacher_prob * student_log_prob


def _check_layout(logits: Tensor, use_sigmoid: bool) -> None:
    if logits.dim() != 2:
        raise ValueError(
            f'logits must be (N, C), found {tuple(logits.shape)}; '
            'flatten a map so that classes come last'
        )
    if not use_sigmoid and logits.shape[1] < 2:
        raise ValueError(
            f'a softmax over {logits.shape[1]} column teaches nothing (logits '
            f'{tuple(logits.shape)}); a head with one score per box needs use_sigmoid=True'
        )


def _object_weights(logits: Tensor, class_weight: Tensor | None, use_sigmoid: bool) -> Tensor:
    num_objects = logits.shape[1] - (0 if use_sigmoid else 1)
    if class_weight is None:
        return logits.new_ones(num_objects)
    if class_weight.shape != (num_objects,):
        raise ValueError(
            f'class_weight must hold one weight for each of the {num_objects} object classes '
            f'(logits {tuple(logits.shape)}, the background has background_weight), '
            f'found shape {tuple(class_weight.shape)}'
        )
    return class_weight.to(logits)


class SoftTargetLoss(nn.Module):
    """``soft_target_loss`` with MMDetection's reduction.

    Args:
        use_sigmoid: binary problems (RPN) instead of a softmax with the background last (R-CNN).
        background_weight: w_bg. Default 1.5, the paper's.
        class_weight: a weight for each object class. Default 1, the paper's.
        temperature: T. Default 1, the paper's.
        kl: 0 where student and teacher agree; same gradient.
        loss_weight: factor of the whole term.
        reduction: 'none', 'mean' or 'sum'.
    """

    compares = 'scores'

    def __init__(
        self,
        use_sigmoid: bool = False,
        background_weight: float = 1.5,
        class_weight: Sequence[float] | None = None,
        temperature: float = 1.0,
        kl: bool = False,
        loss_weight: float = 1.0,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.use_sigmoid = boolean('use_sigmoid', use_sigmoid)
        self.background_weight = non_negative('background_weight', background_weight)
        self.temperature = positive('temperature', temperature)
        self.kl = boolean('kl', kl)
        self.loss_weight = non_negative('loss_weight', loss_weight)
        self.reduction = one_of('reduction', reduction, REDUCTIONS)
        if class_weight is not None:
            if not isinstance(class_weight, (list, tuple)):
                raise TypeError(
                    'class_weight must be a list with one weight for each object class, '
                    f'found {class_weight!r}'
                )
            class_weight = torch.tensor(
                [non_negative(f'class_weight[{i}]', w) for i, w in enumerate(class_weight)]
            )
        # not persistent: a checkpoint holds the student's keys and no others
        self.register_buffer('class_weight', class_weight, persistent=False)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Logits (N, C) of both, ``weight`` (N,). A scalar, or (N,) with reduction 'none'."""
        loss = soft_target_loss(
            student_logits,
            teacher_logits,
            class_weight=self.class_weight,
            temperature=self.temperature,
            use_sigmoid=self.use_sigmoid,
            background_weight=self.background_weight,
            kl=self.kl,
        )
        reduction = pick_reduction(self.reduction, reduction_override)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def extra_repr(self) -> str:
        return (
            f'use_sigmoid={self.use_sigmoid}, background_weight={self.background_weight}, '
            f'temperature={self.temperature}, kl={self.kl}, loss_weight={self.loss_weight}'
        )
