"""Ops of ``mmcv._ext``, one family a file, with the call signatures of MMCV's Python wrappers.

MMCV allocates outputs and gradients (zeros) and calls ``*_forward`` and ``*_backward``, which fill them; there is no
autograd here. Each file lists the ops it serves in ``__all__``.
"""
from __future__ import annotations

from collections.abc import Callable

from . import (
    build_info,
    carafe,
    deform_conv,
    deform_roi_pool,
    focal_loss,
    masked_conv,
    ms_deform_attn,
    nms,
    roi_align,
    roi_pool,
)

SERVED: dict[str, Callable] = {
    name: getattr(family, name)
    for family in (build_info, carafe, deform_conv, deform_roi_pool, focal_loss, masked_conv,
                   ms_deform_attn, nms, roi_align, roi_pool)
    for name in family.__all__}
"""Every served op by its name in ``mmcv._ext``."""
