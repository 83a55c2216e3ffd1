"""Bring a guided feature map to the spatial size of its hint."""
import torch.nn.functional as F
from torch import Tensor

from ..arguments import one_of

RESIZE_MODES = ('pad', 'interpolate', 'none')


def match_size(guided: Tensor, target_size: tuple[int, int] | None, mode: str = 'pad') -> Tensor:
    """Resolve a difference between the guided map's size and the hint's.

    - 'pad': zeros are added at the right and at the bottom, as images are padded, so that equal indices stay equal
      places. A guided map that is larger is cropped there: what has no hint is not compared. This bridges the rounding
      of strides. Maps that differ by a factor of 2 or more have different strides, and padding would compare different
      places: an error.
    - 'interpolate': bilinear, any sizes.
    - 'none': a difference is an error.

    Args:
        guided: (N, C, h, w).
        target_size: (H, W) of the hint; None leaves ``guided`` as it is.
        mode: one of the above.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: an unknown mode, or sizes that the mode does not bridge (both are printed).

    Source: padding is Chen et al. 2017, sec. 3.4; where the zeros go is not said there.
    """
    one_of('resize', mode, RESIZE_MODES)
    if target_size is None:
        return guided
    if guided.dim() != 4 or len(target_size) != 2:
        raise ValueError(
            'a guided map (N, C, h, w) and a target_size (H, W) are needed, found '
            f'{tuple(guided.shape)} and {tuple(target_size)}'
        )
    height, width = target_size
    if guided.shape[2:] == (height, width):
        return guided
    sizes = f'guided {tuple(guided.shape)}, hint (.., {height}, {width})'
    if mode == 'interpolate':
        return F.interpolate(guided, size=(height, width), mode='bilinear', align_corners=False)
    if mode == 'none':
        raise ValueError(
            f"spatial sizes differ ({sizes}) and resize='none'; use resize='pad' or 'interpolate'"
        )
    if not all(_same_stride(a, b) for a, b in zip(guided.shape[2:], (height, width))):
        raise ValueError(
            f"spatial sizes differ by more than padding can bridge ({sizes}): the strides differ; "
            "take a level of the same stride, or resize='interpolate'"
        )
    return F.pad(guided, (0, width - guided.shape[3], 0, height - guided.shape[2]))


def _same_stride(size: int, other: int) -> bool:
    small, large = sorted((size, other))
    return large < 2 * small or large - small <= 1  # 1 against 2 may be rounding
