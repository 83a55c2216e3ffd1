"""Data sets that distillation needs."""
from .two_view import TwoViewDataset

__all__ = ['TwoViewDataset']
