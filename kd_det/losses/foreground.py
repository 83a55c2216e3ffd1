"""Which cells of a feature map belong to objects, and how much each of them counts (Yang et al. 2022)."""
from collections.abc import Sequence

import torch
from torch import Tensor

# Share of a cell by which a box may reach into it without touching it: coordinates that went through resizing and flips
# end a little beside the border that they mean.
TOLERANCE = 1e-3
BOXES_AT_ONCE = 64


def foreground_mask(boxes: Sequence[Tensor], size: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
    """1 / (cells of the box) at the cells that a box touches, the largest where boxes overlap, and 0 elsewhere.

    Cell (i, j) covers the pixels from (i H / h, j W / w) to the next cell's. The canvas is that of the padded batch,
    from which the feature map was made; an image that is smaller has its boxes at the same pixels there. What lies
    outside the canvas touches nothing; a box without extent touches the cell that it lies in.

    Args:
        boxes: for each of N images (G, 4), xyxy in pixels of the padded batch.
        size: (h, w) of the feature map.
        canvas: (H, W) of the padded batch, pixels.

    Returns:
        (N, h, w), float32, on the boxes' device. No value of a tensor is read on the host.

    Raises:
        ValueError: boxes that are not (G, 4), sizes below 1.

    Source: Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022, eq. 3 and 4.
    """
    (height, width), (canvas_height, canvas_width) = size, canvas
    if min(height, width) < 1 or min(canvas_height, canvas_width) <= 0:
        raise ValueError(f'size and canvas must be positive, found size {tuple(size)}, canvas {tuple(canvas)}')
    masks = []
    for image, box in enumerate(boxes):
        if box.dim() != 2 or box.shape[1] != 4:
            raise ValueError(f'boxes of image {image} must be (G, 4), found {tuple(box.shape)}')
        mask = torch.zeros(height, width, device=box.device)
        for some in box.detach().float().split(BOXES_AT_ONCE):
            x1, y1, x2, y2 = some.unbind(1)                                            # (G,) each
            rows = _touched(y1 * height / canvas_height, y2 * height / canvas_height, height)      # (G, h)
            columns = _touched(x1 * width / canvas_width, x2 * width / canvas_width, width)        # (G, w)
            area = rows.sum(1) * columns.sum(1)                                        # (G,)
            inside = rows[:, :, None] * columns[:, None, :] / area.clamp(min=1)[:, None, None]     # (G, h, w)
            mask = torch.cat([mask[None], inside]).amax(0)
        masks.append(mask)
    return torch.stack(masks) if masks else torch.zeros(0, height, width)


def background_mask(foreground: Tensor) -> Tensor:
    """1 / (cells without object) at these cells of each image, 0 at objects.

    Args:
        foreground: (N, h, w), 0 where there is no object.

    Returns:
        (N, h, w).
    """
    outside = (foreground == 0).to(foreground.dtype)
    return outside / outside.sum((1, 2), keepdim=True).clamp(min=1)


def _touched(start: Tensor, end: Tensor, size: int) -> Tensor:
    """(G, size), 1 at the cells that the interval from ``start`` to ``end``, in cells, touches."""
    first = (start + TOLERANCE).floor()
    last = torch.maximum((end - TOLERANCE).ceil(), first + 1)  # the first that is not touched
    cell = torch.arange(size, device=start.device)
    touched = (cell >= first[:, None]) & (cell < last[:, None])
    return touched.to(start.dtype)
