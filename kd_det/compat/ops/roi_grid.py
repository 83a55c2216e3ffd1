"""The sampling points of RoIAlign as tensors, for the modes that torchvision has no kernel for."""
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 23
"""Samples times channels handled at once; bounds the memory of the composite modes."""


def mend_rois(rois: Tensor) -> tuple[Tensor, Tensor]:
    """RoIs with the rows that hold NaN or infinity set to 0, and a mask (R,) of those rows.

    The kernels would read foreign memory there; callers set the output of these rows to NaN.
    """
    broken = ~rois.isfinite().all(dim=1)  # (R,)
    return rois.masked_fill(broken[:, None], 0), broken


def sampling_points(rois: Tensor, pooled: tuple[int, int], spatial_scale: float,
                    sampling_ratio: int, aligned: bool,
                    channels: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Sampling points of each bin, in chunks of RoIs that share one grid size.

    Args:
        rois: (R, 5) of (batch index, x1, y1, x2, y2), image pixels.
        pooled: bins (PH, PW).
        sampling_ratio: samples per bin and axis; 0 takes ``ceil(bin size)`` of them.
        aligned: shift by half a pixel and allow RoIs under one pixel.
        channels: of the feature map, only to size the chunks.

    Yields:
        ``(which, y, x)``: RoI indices (K,), rows (K, PH, GH) and columns (K, PW, GW) of the
        samples in feature map pixels. RoIs whose grid is empty (no extent) do not appear.
    """
    shift = 0.5 if aligned else 0.0
    start = rois[:, [2, 1]] * spatial_scale - shift  # (R, 2) as (y, x)
    extent = rois[:, [4, 3]] * spatial_scale - shift - start  # (R, 2)
    if not aligned:
        extent = extent.clamp(min=1)  # (R, 2)
    bins = extent / extent.new_tensor(pooled)  # (R, 2)
    if sampling_ratio > 0:
        grids = torch.full_like(bins, sampling_ratio, dtype=torch.long)  # (R, 2)
    else:
        grids = bins.ceil().long()  # (R, 2)
    for rows, columns in torch.unique(grids, dim=0).tolist():
        if rows < 1 or columns < 1:
            continue
        group = ((grids[:, 0] == rows) & (grids[:, 1] == columns)).nonzero()[:, 0]  # (G,)
        size = max(1, CHUNK_ELEMENTS // (pooled[0] * pooled[1] * rows * columns * channels))
        for which in group.split(size):  # (K,)
            y, x = (_axis(start[which, axis], bins[which, axis], pooled[axis], grid)
                    for axis, grid in ((0, rows), (1, columns)))
            yield which, y, x


def _axis(start: Tensor, size: Tensor, count: int, grid: int) -> Tensor:
    """Samples along one axis: ``start + (bin + (i + 0.5) / grid) * size``, (K, count, grid)."""
    bins = torch.arange(count, device=start.device, dtype=start.dtype)  # (count,)
    steps = torch.arange(grid, device=start.device, dtype=start.dtype) + 0.5  # (grid,)
    return (start[:, None, None] + bins[:, None] * size[:, None, None]
            + steps * size[:, None, None] / grid)  # (K, count, grid)


def bilinear_corners(y: Tensor, x: Tensor, height: int, width: int) -> Iterator[tuple]:
    """Flat index (int64) and weight of the four pixels around each point, one corner at a time.

    Points more than one pixel outside have weight 0, points less than that are moved to the border.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y = y.clamp(0, height - 1)
    x = x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    for row, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, column_weight in ((left, 1 - (x - left)), (left + 1, x - left)):
            index = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
            yield index.long(), row_weight * column_weight * inside
