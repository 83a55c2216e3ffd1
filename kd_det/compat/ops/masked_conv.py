"""Convolution at chosen output pixels only (as in Guided Anchoring, Wang et al., sec. 3.2)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['masked_col2im_forward', 'masked_im2col_forward']


def masked_im2col_forward(features: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor,
                          data_col: Tensor, *, kernel_h: int, kernel_w: int, pad_h: int,
                          pad_w: int) -> None:
    """Fill ``data_col`` (C * kernel_h * kernel_w, M) with the patches of M output pixels.

    Args:
        features: (1, C, H, W).
        mask_h_idx, mask_w_idx: (M,) int64, output row and column (stride 1).
    """
    padded = F.pad(features.detach()[0], (pad_w, pad_w, pad_h, pad_h))  # (C, H+2p, W+2p)
    rows = torch.arange(kernel_h, device=features.device)[:, None] + mask_h_idx  # (kh, M)
    columns = torch.arange(kernel_w, device=features.device)[:, None] + mask_w_idx  # (kw, M)
    data_col.copy_(padded[:, rows[:, None], columns].reshape(data_col.shape))


def masked_col2im_forward(masked_output: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor,
                          output: Tensor, *, height: int, width: int, channels: int) -> None:
    """Write ``masked_output`` (C, M) to its pixels of ``output`` (1, C, H, W)."""
    output[0, :, mask_h_idx, mask_w_idx] = masked_output.detach().to(output.dtype)
