"""Data sets that distillation needs."""
from .scored_boxes import ScoredCocoDataset
from .source_ratio_sampler import SourceRatioSampler
from .two_view import TwoViewDataset
from .unlabelled_images import UnlabelledImages

__all__ = ['ScoredCocoDataset', 'SourceRatioSampler', 'TwoViewDataset', 'UnlabelledImages']
