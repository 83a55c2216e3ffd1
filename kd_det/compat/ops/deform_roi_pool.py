"""Deformable RoI pooling (Dai et al., 2017, sec. 2.2) with the samples of RoIAlign."""
from __future__ import annotations

import torch
from torch import Tensor

from .precision import compute_dtype
from .roi_grid import bilinear_corners, mend_rois, sampling_points

__all__ = ['deform_roi_pool_backward', 'deform_roi_pool_forward']


def _bin_means(pixels: Tensor, roi: Tensor, offset: Tensor | None, y: Tensor, x: Tensor,
               size: tuple[int, int], spatial_scale: float, gamma: float) -> Tensor:
    """Mean of the shifted samples of each bin, (K, C, PH, PW); differentiable."""
    height, width = size
    y = y[:, :, None, :, None]  # (K, PH, 1, GH, 1)
    x = x[:, None, :, None, :]  # (K, 1, PW, 1, GW)
    if offset is not None:
        extent = (roi[:, 3:5] - roi[:, 1:3]) * (spatial_scale * gamma)  # (K, 2) as (x, y)
        shift = (offset * extent[:, :, None, None])[..., None, None]  # (K, 2, PH, PW, 1, 1)
        x, y = x + shift[:, 0], y + shift[:, 1]  # (K, PH, PW, 1, GW), (K, PH, PW, GH, 1)
    first = roi[:, 0].long().view(-1, 1, 1, 1, 1) * (height * width)  # (K, 1, 1, 1, 1)
    value = sum(pixels[first + index] * weight[..., None] for index, weight
                in bilinear_corners(y, x, height, width))  # (K, PH, PW, GH, GW, C)
    return value.mean(dim=(3, 4)).permute(0, 3, 1, 2)  # (K, C, PH, PW)


def _operands(input: Tensor, rois: Tensor,
              offset: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    dtype = compute_dtype(input, rois)
    rois, broken = mend_rois(rois.detach().to(dtype))  # (R, 5), (R,)
    if offset.numel():
        lost = ~offset.isfinite().flatten(1).all(dim=1)  # (R,)
        offset = offset.masked_fill(lost[:, None, None, None], 0)  # (R, 2, PH, PW)
        broken = broken | lost  # (R,)
    pixels = input.detach().to(dtype).permute(0, 2, 3, 1).reshape(-1, input.size(1))  # (N*H*W, C)
    return pixels, rois, offset.detach().to(dtype) if offset.numel() else None, broken


def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, *,
                            pooled_height: int, pooled_width: int, spatial_scale: float,
                            sampling_ratio: int, gamma: float) -> None:
    """Fill ``output`` (R, C, PH, PW).

    Args:
        input: (N, C, H, W).
        rois: (R, 5) of (batch index, x1, y1, x2, y2), image pixels.
        offset: (R, 2, PH, PW) of (dx, dy), each bin's shift in units of ``gamma`` times the RoI's width and height;
            empty for none.

    The output of RoIs that hold NaN or infinity, or whose offsets do, is NaN.
    """
    pixels, rois, offset, broken = _operands(input, rois, offset)
    for which, y, x in sampling_points(rois, (pooled_height, pooled_width), spatial_scale,
                                       sampling_ratio, True, input.size(1)):
        output[which] = _bin_means(
            pixels, rois[which], None if offset is None else offset[which], y, x,
            input.shape[2:], spatial_scale, gamma).to(output.dtype)
    output.masked_fill_(broken[:, None, None, None], torch.nan)


def deform_roi_pool_backward(grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor,
                             grad_input: Tensor, grad_offset: Tensor, *, pooled_height: int,
                             pooled_width: int, spatial_scale: float, sampling_ratio: int,
                             gamma: float) -> None:
    """Add the gradients into ``grad_input`` and ``grad_offset``.

    Samples that lie within a pixel outside the map read its border, so their position has no gradient there (MMCV's
    kernel sends the one of the border pixels).
    """
    batch, channels, height, width = input.shape
    pixels, rois, offset, _ = _operands(input, rois, offset)
    pixels.requires_grad_()
    total = torch.zeros_like(pixels)  # (N*H*W, C)
    for which, y, x in sampling_points(rois, (pooled_height, pooled_width), spatial_scale,
                                       sampling_ratio, True, channels):
        shift = None if offset is None else offset[which].requires_grad_()  # (K, 2, PH, PW)
        with torch.enable_grad():
            means = _bin_means(pixels, rois[which], shift, y, x, (height, width), spatial_scale,
                               gamma)
            leaves = [pixels] if shift is None else [pixels, shift]
            grads = torch.autograd.grad(means, leaves, grad_output[which].to(means.dtype))
        total += grads[0]
        if shift is not None:
            grad_offset[which] += grads[1].to(grad_offset.dtype)
    grad_input.add_(total.view(batch, height, width, channels).permute(0, 3, 1, 2))
