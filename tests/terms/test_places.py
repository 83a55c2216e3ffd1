"""Places of masks equal ``nonzero``'s, and cost the host no wait, or one."""
import sys
from pathlib import Path

import pytest
import torch

from kd_det.terms.places import places_of, places_of_all

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'))
from host_syncs import HostWaits

MASKS = [torch.zeros(0, dtype=torch.bool), torch.zeros(7, dtype=torch.bool), torch.ones(7, dtype=torch.bool),
         torch.arange(501) % 7 == 3]


@pytest.mark.parametrize('mask', MASKS)
def test_places_are_those_of_nonzero(mask):
    assert places_of(mask, int(mask.sum())).equal(mask.nonzero().flatten())


def test_all_masks_cost_one_wait():
    with HostWaits() as waits:
        found = places_of_all(*MASKS)
    assert waits.counts == {'Tensor.tolist': 1}
    assert all(places.equal(mask.nonzero().flatten()) for places, mask in zip(found, MASKS))


def test_known_counts_cost_no_wait():
    with HostWaits() as waits:
        places_of(MASKS[3], 71)
    assert waits.total() == 0


def test_the_counter_sees_every_way_to_wait():
    values, mask = torch.arange(4.), torch.arange(4) % 2 == 0
    ways = [lambda: values[0].item(), lambda: bool(mask.any()), lambda: mask.nonzero(), lambda: values[mask],
            lambda: values.unique(), lambda: values.tolist(), lambda: values.cpu(),
            lambda: values.clone().__setitem__(mask, values[:2])]
    for number, way in enumerate(ways):
        with HostWaits() as waits:
            way()
        assert waits.total() == 1, number
    with HostWaits() as waits:
        values.clone()[mask] = 0.  # a masked fill
        _ = values[mask.long()], values.where(mask, 0.), values.sum()
    assert waits.total() == 0
