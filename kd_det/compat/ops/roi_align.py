"""RoIAlign (He et al., Mask R-CNN, sec. 3): average or maximum of bilinear samples in each bin."""
from __future__ import annotations

import torch
import torchvision.ops  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import compute_dtype
from .roi_grid import bilinear_corners, mend_rois, sampling_points

__all__ = ['roi_align_backward', 'roi_align_forward']

MAX_MODE = 0


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor,
                      argmax_x: Tensor, aligned_height: int, aligned_width: int,
                      spatial_scale: float, sampling_ratio: int, pool_mode: int,
                      aligned: bool) -> None:
    """Fill ``output`` (R, C, PH, PW) and, in max mode, the winning samples.

    Args:
        input: (N, C, H, W).
        rois: (R, 5) of (batch index, x1, y1, x2, y2), image pixels.
        argmax_y, argmax_x: (R, C, PH, PW) in max mode, filled with the row and column of the winning sample in its
            bin's grid (-1: the RoI has no extent, its output is 0). Indices rather than coordinates, because half
            precision holds small integers exactly.
        pool_mode: 0 maximum, 1 average.

    The output of RoIs that hold NaN or infinity is NaN.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(input, rois)
    input = input.detach().to(dtype)  # (N, C, H, W)
    rois, broken = mend_rois(rois.detach().to(dtype))  # (R, 5), (R,)
    if pool_mode != MAX_MODE:
        output.copy_(torch.ops.torchvision.roi_align(
            input, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned))
        output.masked_fill_(broken[:, None, None, None], torch.nan)
        return
    _, channels, height, width = input.shape
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)  # (N*H*W, C)
    output.zero_()
    argmax_y.fill_(-1)
    argmax_x.fill_(-1)
    for which, y, x in sampling_points(rois, (aligned_height, aligned_width), spatial_scale,
                                       sampling_ratio, aligned, channels):
        y = y[:, :, None, :, None]  # (K, PH, 1, GH, 1)
        x = x[:, None, :, None, :]  # (K, 1, PW, 1, GW)
        first = rois[which, 0].long().view(-1, 1, 1, 1, 1) * (height * width)  # (K, 1, 1, 1, 1)
        value = sum(pixels[first + index] * weight[..., None] for index, weight
                    in bilinear_corners(y, x, height, width))  # (K, PH, PW, GH, GW, C)
        best, sample = value.flatten(3, 4).max(dim=3)  # (K, PH, PW, C) each
        output[which] = best.permute(0, 3, 1, 2).to(output.dtype)
        sample = sample.permute(0, 3, 1, 2)  # (K, C, PH, PW)
        grid_columns = x.size(-1)
        argmax_y[which] = (sample // grid_columns).to(argmax_y.dtype)
        argmax_x[which] = (sample % grid_columns).to(argmax_x.dtype)
    output.masked_fill_(broken[:, None, None, None], torch.nan)


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    """Add the gradient with respect to ``input`` into ``grad_input`` (N, C, H, W).

    torchvision's CUDA kernel adds atomically and refuses to run under ``torch.use_deterministic_algorithms(True)``;
    there a slower deterministic path takes over.
    """
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(grad_output, rois)
    grad = grad_output.to(dtype).contiguous()  # (R, C, PH, PW)
    rois = mend_rois(rois.detach().to(dtype))[0].contiguous()  # (R, 5)
    deterministic = grad.is_cuda and torch.are_deterministic_algorithms_enabled()
    if pool_mode != MAX_MODE and not deterministic:
        grad_input.add_(torch.ops.torchvision._roi_align_backward(
            grad, rois, spatial_scale, aligned_height, aligned_width, *grad_input.shape,
            sampling_ratio, aligned))
        return
    batch, channels, height, width = grad_input.shape
    pixels = grad.new_zeros(batch * height * width * channels)  # (N*H*W*C,)
    channel = torch.arange(channels, device=grad.device)  # (C,)
    for which, y, x in sampling_points(rois, (aligned_height, aligned_width), spatial_scale,
                                       sampling_ratio, aligned, channels):
        first = rois[which, 0].long() * (height * width)  # (K,)
        bins = grad[which].permute(0, 2, 3, 1)  # (K, PH, PW, C)
        if pool_mode == MAX_MODE:
            row = argmax_y[which].permute(0, 2, 3, 1).long()  # (K, PH, PW, C)
            column = argmax_x[which].permute(0, 2, 3, 1).long()  # (K, PH, PW, C)
            y = y[:, :, None].expand(-1, -1, aligned_width, -1).gather(3, row)
            x = x[:, None].expand(-1, aligned_height, -1, -1).gather(3, column)
            first = first.view(-1, 1, 1, 1)  # (K, 1, 1, 1)
        else:
            bins = bins[:, :, :, None, None] / (y.size(-1) * x.size(-1))  # (K, PH, PW, 1, 1, C)
            y = y[:, :, None, :, None, None]  # (K, PH, 1, GH, 1, 1)
            x = x[:, None, :, None, :, None]  # (K, 1, PW, 1, GW, 1)
            first = first.view(-1, 1, 1, 1, 1, 1)  # (K, 1, 1, 1, 1, 1)
        for index, weight in bilinear_corners(y, x, height, width):
            place = (first + index) * channels + channel  # (K, PH, PW, [GH, GW,] C)
            pixels.index_put_((place,), weight * bins, accumulate=True)
    grad_input.add_(pixels.view(batch, height, width, channels).permute(0, 3, 1, 2))
