"""Distillation losses. Each file holds one: a function on tensors and the module around it.

Nothing here needs more than torch. The modules keep MMDetection's conventions (`loss_weight`,
`reduction`, `avg_factor`, `reduction_override`); the functions do not reduce over samples,
except `hint_loss`. The teacher's tensors are detached inside.
"""
from .box_mimicry import BoxMimicryLoss, box_mimicry_loss
from .focal_kl import FocalKLLoss, focal_kl_loss
from .hint import HintLoss, hint_loss
from .logit_matching import LogitMatchingLoss, logit_matching_loss
from .pkd import PKDLoss, pkd_loss
from .reduction import reduce_loss
from .soft_target import SoftTargetLoss, soft_target_loss
from .teacher_bounded import TeacherBoundedLoss, teacher_bounded_loss

__all__ = [
    'BoxMimicryLoss',
    'FocalKLLoss',
    'HintLoss',
    'LogitMatchingLoss',
    'PKDLoss',
    'SoftTargetLoss',
    'TeacherBoundedLoss',
    'box_mimicry_loss',
    'focal_kl_loss',
    'hint_loss',
    'logit_matching_loss',
    'pkd_loss',
    'reduce_loss',
    'soft_target_loss',
    'teacher_bounded_loss',
]
