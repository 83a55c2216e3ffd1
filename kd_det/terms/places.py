"""Where masks are True, with as few waits for the device as possible."""
import torch
from torch import Tensor


def places_of(mask: Tensor, count: int) -> Tensor:
    """``mask.nonzero().flatten()`` where the host knows how many there are: nothing waits for the device.

    Args:
        mask: bool (A,).
        count: how many of them are True.

    Returns:
        long (count,), ascending.
    """
    slots = (mask.cumsum(0) - 1).where(mask, count)  # (A,), what is False goes to the last one
    found = slots.new_empty(count + 1).scatter_(0, slots, torch.arange(len(mask), device=mask.device))
    return found[:count]


def places_of_all(*masks: Tensor) -> list[Tensor]:
    """``mask.nonzero().flatten()`` of several masks on one device; the host waits once for all of them.

    Args:
        *masks: bool (A,), of any lengths.
    """
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    return [places_of(mask, count) for mask, count in zip(masks, counts)]
