"""How far two label assignments of one batch agree."""
from typing import NamedTuple

import torch
from torch import Tensor


class Agreement(NamedTuple):
    """Counts, which add up over steps and ranks.

    Attributes:
        common: pairs of a prior and the object that it serves which both assignments have.
        either: pairs that at least one of them has.
        differing: objects whose positives are not the same priors in both.
        objects: objects that have candidates.
    """

    common: float
    either: float
    differing: float
    objects: float

    @property
    def positives_iou(self) -> float | None:
        """Intersection over union of the two sets of positives; None: neither has any."""
        return self.common / self.either if self.either else None

    @property
    def objects_differing(self) -> float | None:
        """Share of the objects whose positives differ; None: there was none."""
        return self.differing / self.objects if self.objects else None


def agreement(first: Tensor, second: Tensor, objects: Tensor, count: int) -> Tensor:
    """The counts of :class:`Agreement`, without a value being read from the device.

    Args:
        first, second: bool (A,), which candidates each assignment makes positive. A candidate is a prior for one
            object.
        objects: long (A,), the object of each candidate, in 0..count - 1.
        count: objects there may be; those without a candidate do not count.

    Returns:
        float64 (4,).
    """
    by_object = torch.zeros(2, count, dtype=torch.float64, device=first.device)
    by_object[0].index_add_(0, objects, (first ^ second).double())
    by_object[1].index_add_(0, objects, torch.ones_like(objects, dtype=torch.float64))
    return torch.stack([(first & second).sum().double(), (first | second).sum().double(),
                        (by_object[0] > 0).sum().double(), (by_object[1] > 0).sum().double()])
