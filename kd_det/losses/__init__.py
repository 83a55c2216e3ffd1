"""Distillation losses. Each file holds one: a function on tensors and the module around it.

Nothing here needs more than torch. The teacher's tensors are detached inside, and what is summed is summed in float32
at least. Each module says by its class attribute ``compares`` what its ``forward`` takes, so that a term can refuse one
of a wrong kind:

===================  =================================================================================================
``'scores'``         logits of student and teacher, of one shape, before softmax or sigmoid
``'distributions'``  logits over the bins of each box edge, (P, 4, B), of student and teacher
``'boxes'``          boxes of student, teacher and target, (N, 4) each, in one encoding
``'features'``       an adapted feature of the student, and the teacher's
===================  =================================================================================================

Losses on scores, distributions and boxes keep MMDetection's conventions (``loss_weight``, ``reduction``,
``avg_factor``, ``reduction_override``), and their functions do not reduce over samples. Losses on features are called
``loss(guided, hint, mask=None)`` for one pyramid level and return a scalar, ``loss_weight`` included; those with
``needs_boxes`` are called ``loss(guided, hint, boxes=[(G, 4), ...], canvas=(H, W))``, xyxy in pixels of the padded
batch. ``needs_channels`` says that a loss has trainable parts, is built with ``channels=`` of the teacher's layer, one
for each level, and belongs into the optimizer; ``sum_levels`` that the paper adds levels up.
"""
from .box_mimicry import BoxMimicryLoss, box_mimicry_loss
from .cosine import CosineLoss, cosine_loss
from .cwd import CWDLoss, cwd_loss
from .distribution_kl import DistributionKLLoss, distribution_kl_loss
from .fgd import FGDLoss, fgd_loss
from .focal_kl import FocalKLLoss, focal_kl_loss
from .foreground import background_mask, foreground_mask
from .hint import HintLoss, hint_loss
from .logit_matching import LogitMatchingLoss, logit_matching_loss
from .mgd import MGDLoss, mgd_loss
from .modulated import ModulatedBCELoss, modulated_loss
from .pkd import PKDLoss, pkd_loss
from .reduction import reduce_loss
from .soft_bce import SoftBCELoss
from .soft_target import SoftTargetLoss, soft_target_loss
from .teacher_bounded import TeacherBoundedLoss, teacher_bounded_loss

__all__ = [
    'BoxMimicryLoss',
    'CWDLoss',
    'CosineLoss',
    'DistributionKLLoss',
    'FGDLoss',
    'FocalKLLoss',
    'HintLoss',
    'LogitMatchingLoss',
    'MGDLoss',
    'ModulatedBCELoss',
    'PKDLoss',
    'SoftBCELoss',
    'SoftTargetLoss',
    'TeacherBoundedLoss',
    'background_mask',
    'box_mimicry_loss',
    'cosine_loss',
    'cwd_loss',
    'distribution_kl_loss',
    'fgd_loss',
    'focal_kl_loss',
    'foreground_mask',
    'hint_loss',
    'logit_matching_loss',
    'mgd_loss',
    'modulated_loss',
    'pkd_loss',
    'reduce_loss',
    'soft_target_loss',
    'teacher_bounded_loss',
]
