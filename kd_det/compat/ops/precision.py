"""The floating type an op computes in."""
from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is float64, else float32.

    torchvision's CPU kernels know only these two, no kernel knows bfloat16, and box coordinates lose whole pixels in
    half precision, so halves are computed in float32 and cast back.
    """
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
