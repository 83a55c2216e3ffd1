"""Dense heads that the papers add, or that make MMDetection's faster."""
from .batched_paa import BatchedPAAHead

__all__ = ['BatchedPAAHead']
