"""RoIPool (Girshick, Fast R-CNN, sec. 2.1) with MMCV's bin edges.

torchvision's kernel rounds the RoI to whole feature pixels first, as Fast R-CNN did; MMCV does not: bin i covers the
pixels from ``floor(x1 + i * w)`` to ``ceil(x1 + (i + 1) * w)`` with ``x1 = scale * roi_x1`` and
``w = (scale * (roi_x2 + 1) - x1) / bins``. Weights trained on one are not at home on the other, so the op is composed
here.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .precision import compute_dtype
from .roi_grid import CHUNK_ELEMENTS, mend_rois

__all__ = ['roi_pool_backward', 'roi_pool_forward']


def _edges(start: Tensor, end: Tensor, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """First and one past the last pixel of each bin along one axis, (R, bins) int64 each."""
    size = (end - start) / bins  # (R,)
    i = torch.arange(bins, device=start.device, dtype=start.dtype)  # (bins,)
    first = torch.floor(i * size[:, None] + start[:, None])  # (R, bins)
    last = torch.ceil((i + 1) * size[:, None] + start[:, None])  # (R, bins)
    return first.clamp(0, limit).long(), last.clamp(0, limit).long()


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor,
                     pooled_height: int, pooled_width: int, spatial_scale: float) -> None:
    """Fill ``output`` (R, C, PH, PW) with bin maxima and ``argmax`` with ``h * W + w`` of each.

    Bins without pixels and RoIs without extent give 0 and argmax -1, RoIs that hold NaN or infinity NaN and -1.
    """
    output.zero_()
    argmax.fill_(-1)
    if output.numel() == 0:
        return
    dtype = compute_dtype(input, rois)
    input = input.detach().to(dtype)  # (N, C, H, W)
    rois, broken = mend_rois(rois.detach().to(dtype))  # (R, 5), (R,)
    _, channels, height, width = input.shape
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)  # (N*H*W, C)
    start = rois[:, 1:3] * spatial_scale  # (R, 2) as (x, y)
    end = (rois[:, 3:5] + 1) * spatial_scale  # (R, 2)
    left, right = _edges(start[:, 0], end[:, 0], pooled_width, width)  # (R, PW)
    top, bottom = _edges(start[:, 1], end[:, 1], pooled_height, height)  # (R, PH)
    valid = ((end > start).all(dim=1)
             & (right > left).any(dim=1) & (bottom > top).any(dim=1))  # (R,)
    spans = torch.stack([(bottom - top).amax(1), (right - left).amax(1)], dim=1)  # (R, 2)
    # RoIs of like size share a chunk, so that small ones do not pay for the largest
    queue = valid.nonzero()[:, 0]  # (V,)
    queue = queue[spans[queue].prod(1).argsort(descending=True)]  # (V,)
    while queue.numel():
        area = int(spans[queue].amax(0).prod())
        size = max(1, CHUNK_ELEMENTS // (pooled_height * pooled_width * area * channels))
        which, queue = queue[:size], queue[size:]
        rows, columns = spans[which].amax(0).tolist()
        y = top[which, :, None] + torch.arange(rows, device=top.device)  # (K, PH, rows)
        x = left[which, :, None] + torch.arange(columns, device=top.device)  # (K, PW, columns)
        inside = ((y < bottom[which, :, None])[:, :, None, :, None]
                  & (x < right[which, :, None])[:, None, :, None, :])  # (K, PH, PW, rows, columns)
        flat = (y.clamp(max=height - 1)[:, :, None, :, None] * width
                + x.clamp(max=width - 1)[:, None, :, None, :]).flatten(3)  # (K, PH, PW, S)
        first = rois[which, 0].long().view(-1, 1, 1, 1) * (height * width)  # (K, 1, 1, 1)
        inside = inside.flatten(3)  # (K, PH, PW, S)
        value = pixels[first + flat].masked_fill(~inside[..., None], -torch.inf)
        best, sample = value.max(dim=3)  # (K, PH, PW, C)
        filled = inside.any(dim=3)[..., None]  # (K, PH, PW, 1)
        place = flat.gather(3, sample)  # (K, PH, PW, C)
        output[which] = (best.masked_fill(~filled, 0)
                         .permute(0, 3, 1, 2).to(output.dtype))
        argmax[which] = (place.masked_fill(~filled, -1)
                         .permute(0, 3, 1, 2).to(argmax.dtype))
    output.masked_fill_(broken[:, None, None, None], torch.nan)
    argmax.masked_fill_(broken[:, None, None, None], -1)


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor,
                      pooled_height: int, pooled_width: int, spatial_scale: float) -> None:
    """Send each bin's gradient to its winning pixel, added into ``grad_input`` (N, C, H, W)."""
    if grad_output.numel() == 0:
        return
    _, channels, height, width = grad_input.shape
    grad = grad_output.to(compute_dtype(grad_output))  # (R, C, PH, PW)
    plane = mend_rois(rois)[0][:, 0].long().view(-1, 1, 1, 1) * channels \
        + torch.arange(channels, device=grad.device).view(-1, 1, 1)  # (R, C, 1, 1)
    place = plane * (height * width) + argmax.long().clamp(min=0)  # (R, C, PH, PW)
    total = grad.new_zeros(grad_input.numel())  # (N*C*H*W,)
    total.index_put_((place,), grad * (argmax >= 0), accumulate=True)
    grad_input.add_(total.view_as(grad_input))
