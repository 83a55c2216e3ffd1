"""Feature maps and tokens as channels; channels brought to mean 0 and deviation 1."""
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import at_least_float32, on_device_of

EPSILON = 1e-6


def channels_first(feature: Tensor) -> Tensor:
    """(C, N, M), M places, a view: of maps (N, C, H, W), tokens (N, M, C) or vectors (N, C).

    Raises:
        ValueError: other shapes.
    """
    if feature.dim() == 4:
        return feature.flatten(2).transpose(0, 1)
    if feature.dim() == 3:
        return feature.permute(2, 0, 1)
    if feature.dim() == 2:
        return feature.t().unsqueeze(2)
    raise ValueError('features must be maps (N, C, H, W), tokens (N, L, C) or vectors (N, C), found '
                     f'{tuple(feature.shape)}')


def places(mask: Tensor | None, feature: Tensor) -> Tensor | None:
    """A mask, (N, 1, H, W) of maps or (N, L, 1) of tokens, as (N, M), the last two dimensions of
    :func:`channels_first`.

    Raises:
        ValueError: not bool, another shape or device than the features'.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        raise ValueError(f'mask must be of dtype bool, found {mask.dtype}')
    wanted = (*feature.shape[:2], 1) if feature.dim() == 3 else (len(feature), 1, *feature.shape[2:])
    if (feature.dim() not in (3, 4) or mask.dim() != len(wanted)
            or any(a not in (1, b) for a, b in zip(mask.shape, wanted))):
        raise ValueError(f'mask of shape {tuple(mask.shape)} does not fit features of shape {tuple(feature.shape)}; '
                         'for maps (N, C, H, W) give (N, 1, H, W), for tokens (N, L, C) (N, L, 1)')
    on_device_of(feature.device, mask=mask)
    return mask.expand(wanted).flatten(1)


class Centred(NamedTuple):
    """Channels without their means.

    Attributes:
        values: (C, N, M), float32 or float64; 0 at places that do not exist.
        mean, variance, deviation: (C,); the deviation is 1 where nothing varies: the root's slope at 0 is infinite, and
            is kept out of the backward pass.
        varies: bool (C,); False for a channel that is constant up to rounding, which has no direction.
        count: of places, at least 1.
    """

    values: Tensor
    mean: Tensor
    variance: Tensor
    deviation: Tensor
    varies: Tensor
    count: int | Tensor


def centred(channels: Tensor, mask: Tensor | None = None) -> Centred:
    """Statistics of every channel, over batch and space.

    Args:
        channels: (C, N, M).
        mask: bool (N, M), True at the places that exist; the others take no part, whatever stands there, and become 0.
    """
    channels = at_least_float32(channels)
    if mask is None:
        count = max(channels[:1].numel(), 1)
    else:
        channels = channels.where(mask, 0.0)
        count = mask.sum().clamp(min=1)
    mean = channels.sum((1, 2)) / count                                              # (C,)
    values = channels - mean[:, None, None]
    if mask is not None:
        values = values.where(mask, 0.0)
    variance = values.square().sum((1, 2)) / count                                   # (C,)
    varies = variance > (4 * torch.finfo(mean.dtype).eps * mean).square()
    return Centred(values, mean, variance, torch.where(varies, variance, 1.0).sqrt(), varies, count)


def standardised(channels: Tensor, mask: Tensor | None = None) -> Tensor:
    """(x - mean) / (std + 1e-6) of every channel, over batch and space; 0 where nothing varies.

    Args:
        channels, mask: see :func:`centred`.

    Returns:
        (C, N, M), in float32 or float64.
    """
    found = centred(channels, mask)
    return torch.where(found.varies[:, None, None], found.values / (found.deviation + EPSILON)[:, None, None], 0.0)
