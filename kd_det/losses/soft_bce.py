"""Centerness and objectness: one binary score, with the teacher's as soft label."""
from .modulated import ModulatedBCELoss


class SoftBCELoss(ModulatedBCELoss):
    """BCE(s, sigmoid(t)): ``ModulatedBCELoss`` without modulator, for the branch beside the classes.

    On positives, divided by their number (``avg_factor``), as CrossKD does for ATSS.

    Args:
        loss_weight: 1 in CrossKD.
        reduction: 'none', 'mean' or 'sum'.

    Source: Wang et al., "CrossKD", CVPR 2024.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean') -> None:
        super().__init__(beta=0.0, loss_weight=loss_weight, reduction=reduction)
