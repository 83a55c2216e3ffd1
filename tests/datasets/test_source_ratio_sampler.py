"""Batches with a fixed share of each data set."""
from types import SimpleNamespace

import pytest

from kd_det.datasets.source_ratio_sampler import SourceRatioSampler
from kd_det.errors import ConfigError

DATA = SimpleNamespace(datasets=[range(4), range(9)], cumulative_sizes=[4, 13])


def batches(sampler):
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return [drawn[i:i + 4] for i in range(0, len(drawn), 4)]


def test_every_batch_has_the_ratio_and_every_image_comes():
    sampler = SourceRatioSampler(DATA, 4, [1, 3], seed=0)
    found = batches(sampler)
    assert len(found) == 4 and all([index < 4 for index in batch] == [True, False, False, False] for batch in found)
    assert {i for batch in found for i in batch} == set(range(13))


def test_orders_differ_by_epoch_and_come_back():
    sampler = SourceRatioSampler(DATA, 4, [1, 3], seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    again = SourceRatioSampler(DATA, 4, [1, 3], seed=0)
    again.set_epoch(1)
    assert list(again) == list(sampler)


def test_two_ranks_share_an_epoch():
    ranks = [SourceRatioSampler(DATA, 4, [2, 2], seed=0) for _ in range(2)]
    for rank, sampler in enumerate(ranks):
        sampler.rank, sampler.world_size, sampler.batches = rank, 2, 2
    one, other = map(list, ranks)
    second = [i for i in one + other if i >= 4]
    assert len(one) == len(other) == 8 and len(set(second)) == 8  # nothing twice before all have come


@pytest.mark.parametrize('data, ratio', [(DATA, [1, 2]), (DATA, [4]), (range(4), [4]),
                                         (SimpleNamespace(datasets=[range(0), range(3)], cumulative_sizes=[0, 3]),
                                          [1, 3])])
def test_what_cannot_be_meant_is_refused(data, ratio):
    with pytest.raises(ConfigError):
        SourceRatioSampler(data, 4, ratio)
