"""Dense heads that the papers add, or that make MMDetection's faster."""
from .batched_paa import BatchedPAAHead
from .cop import COPHead

__all__ = ['BatchedPAAHead', 'COPHead']
