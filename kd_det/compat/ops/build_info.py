"""What MMCV's environment report asks a compiled extension."""
from __future__ import annotations

__all__ = ['get_compiler_version', 'get_compiling_cuda_version']


def get_compiler_version() -> str:
    return 'none (ops served by kd_det from torchvision and PyTorch)'


def get_compiling_cuda_version() -> str:
    return 'none (ops served by kd_det from torchvision and PyTorch)'
