"""CARAFE upsampling (Wang et al., Content-Aware ReAssembly of FEatures, eq. 2)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import compute_dtype

__all__ = ['carafe_backward', 'carafe_forward', 'carafe_naive_backward', 'carafe_naive_forward']


def _reassemble(features: Tensor, masks: Tensor, kernel_size: int, group_size: int,
                scale_factor: int) -> Tensor:
    """Each output pixel is a weighted sum of its source pixel's k x k neighbourhood."""
    batch, channels, height, width = features.shape
    taps, scale = kernel_size ** 2, scale_factor
    patches = F.unfold(features, kernel_size, padding=(kernel_size - 1) // 2).view(
        batch, group_size, channels // group_size, taps, height, width)
    weights = masks.view(batch, group_size, taps, height, scale, width, scale)
    output = torch.einsum('ngckhw,ngkhswt->ngchswt', patches, weights)
    return output.reshape(batch, channels, height * scale, width * scale)  # (N, C, sH, sW)


def _forward(features: Tensor, masks: Tensor, output: Tensor, **sizes: int) -> None:
    if output.numel() == 0:
        return
    dtype = compute_dtype(features, masks)
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        output.copy_(_reassemble(features.to(dtype), masks.to(dtype).contiguous(), **sizes))


def _backward(grad_output: Tensor, features: Tensor, masks: Tensor, grad_input: Tensor,
              grad_masks: Tensor, **sizes: int) -> None:
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(features, masks)
    inputs = [t.detach().to(dtype).contiguous().requires_grad_() for t in (features, masks)]
    with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
        output = _reassemble(*inputs, **sizes)
        by_features, by_masks = torch.autograd.grad(output, inputs, grad_output.to(dtype))
    grad_input.add_(by_features)
    grad_masks.add_(by_masks)


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, *, kernel_size: int,
                         group_size: int, scale_factor: int) -> None:
    """Fill ``output`` (N, C, sH, sW).

    Args:
        features: (N, C, H, W).
        masks: (N, group_size * kernel_size^2, sH, sW), weights of each output pixel.
    """
    _forward(features, masks, output, kernel_size=kernel_size, group_size=group_size,
             scale_factor=scale_factor)


def carafe_naive_backward(grad_output: Tensor, features: Tensor, masks: Tensor,
                          grad_input: Tensor, grad_masks: Tensor, *, kernel_size: int,
                          group_size: int, scale_factor: int) -> None:
    """Add the gradients into ``grad_input`` and ``grad_masks``."""
    _backward(grad_output, features, masks, grad_input, grad_masks, kernel_size=kernel_size,
              group_size=group_size, scale_factor=scale_factor)


def carafe_forward(features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor,
                   rmasks: Tensor, output: Tensor, *, kernel_size: int, group_size: int,
                   scale_factor: int) -> None:
    """As :func:`carafe_naive_forward`; ``rfeatures``, which MMCV saves for backward, is filled."""
    rfeatures.copy_(features)
    _forward(features, masks, output, kernel_size=kernel_size, group_size=group_size,
             scale_factor=scale_factor)


def carafe_backward(grad_output: Tensor, rfeatures: Tensor, masks: Tensor, rgrad_output: Tensor,
                    rgrad_input_hs: Tensor, rgrad_input: Tensor, rgrad_masks: Tensor,
                    grad_input: Tensor, grad_masks: Tensor, *, kernel_size: int,
                    group_size: int, scale_factor: int) -> None:
    """As :func:`carafe_naive_backward`; the ``rgrad_*`` scratch tensors are unused."""
    _backward(grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size=kernel_size,
              group_size=group_size, scale_factor=scale_factor)
