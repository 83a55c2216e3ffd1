"""Data sets that distillation needs."""
from .source_ratio_sampler import SourceRatioSampler
from .two_view import TwoViewDataset

__all__ = ['SourceRatioSampler', 'TwoViewDataset']
