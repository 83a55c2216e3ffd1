"""The criteria of co-learning on numbers computed by hand, and their rule for ties and single candidates."""
import math

import pytest
import torch
from mmdet.registry import TASK_UTILS

from kd_det.assignment import criteria
from kd_det.assignment.criteria import (
    FisherCriterion,
    FixedCriterion,
    MeanCostCriterion,
    RandomCriterion,
    StdMeanCriterion,
)

# decision 0: {1, 3} against {2, 2}; decision 1: {5} against {4}; decision 2: {1, 1, 4} against {1, 2, 9}
CELLS = torch.tensor([0, 1, 0, 2, 2, 2])
COSTS = torch.tensor([[1., 5, 3, 1, 1, 4], [2., 4, 2, 1, 2, 9]])


def test_mean_and_std_over_mean_by_hand():
    assert torch.allclose(criteria.mean_cost(COSTS, CELLS, 3), torch.tensor([[2, 5, 2.], [2, 4, 4]]).double())
    expected = torch.tensor([[1 / 2, 0, math.sqrt(2) / 2], [0, 0, math.sqrt(38 / 3) / 4]]).double()
    assert torch.allclose(criteria.std_over_mean(COSTS, CELLS, 3), expected)
    # of one candidate rho is 0 exactly, whatever the cost
    single = torch.rand(2, 50) * 7
    assert (criteria.std_over_mean(single, torch.arange(50), 50) == 0).all()


def test_fisher_is_of_the_two_component_fit():
    """Two groups far apart: the fit has their means and variances (plus 1e-6 of the whole variance, reg_covar)."""
    groups = torch.tensor([[0., 2, 100, 104], [0., 2, 100, 130]])
    rho = criteria.fisher(groups, torch.zeros(4, dtype=torch.long), 1)
    assert rho.flatten().tolist() == pytest.approx([101**2 / (1 + 4), 114**2 / (1 + 225)], rel=3e-3)
    assert (criteria.fisher(torch.tensor([[3.], [1.]]), torch.tensor([0]), 1) == 0).all()
    interleaved = torch.tensor([[0., 7, 2, 100, 104], [0., 3, 2, 100, 130]])
    both = criteria.fisher(interleaved, torch.tensor([1, 0, 1, 1, 1]), 2)
    assert torch.allclose(both[:, 1:], rho) and (both[:, 0] == 0).all()


def test_fisher_does_not_depend_on_the_scale_of_costs():
    """Clusters closer than the fit's first variance of 1 are told apart, and k * c has the rho of c."""
    torch.manual_seed(0)
    tight = torch.cat([0.5 + 0.02 * torch.randn(10), 1.0 + 0.02 * torch.randn(10)])
    wide = torch.cat([0.5 + 0.3 * torch.randn(10), 2.5 + 0.3 * torch.randn(10)])
    cells = torch.zeros(20, dtype=torch.long)
    rho = criteria.fisher(torch.stack([tight, wide]), cells, 1).flatten()

    def by_hand(c):
        return (c[10:].mean() - c[:10].mean())**2 / (c[:10].var(correction=0) + c[10:].var(correction=0))
    assert rho.tolist() == pytest.approx([float(by_hand(tight)), float(by_hand(wide))], rel=0.02)
    assert FisherCriterion()(torch.stack([tight, wide]), cells, 1).tolist() == [True]
    for factor in (0.01, 1000.0):
        assert criteria.fisher(torch.stack([tight, wide]) * factor, cells, 1).flatten().tolist() == pytest.approx(
            rho.tolist(), rel=1e-4)
    assert (criteria.fisher(torch.full((2, 20), 0.7), cells, 1) == 0).all()  # no spread, no groups


def test_decisions():
    assert StdMeanCriterion()(COSTS, CELLS, 3).tolist() == [True, False, False]
    assert MeanCostCriterion()(COSTS, CELLS, 3).tolist() == [True, False, True]
    assert FixedCriterion('first')(COSTS, CELLS, 3).all() and not FixedCriterion('second')(COSTS, CELLS, 3).any()
    costs = torch.tensor([[0., 2, 100, 104], [0., 2, 100, 130]])
    assert FisherCriterion()(costs, torch.zeros(4, dtype=torch.long), 1).tolist() == [True]
    assert FisherCriterion()(costs.flip(0), torch.zeros(4, dtype=torch.long), 1).tolist() == [False]


@pytest.mark.parametrize('criterion', [StdMeanCriterion(), FisherCriterion(), MeanCostCriterion()])
def test_of_one_candidate_the_lower_cost_wins_and_swapping_swaps(criterion):
    assert criterion(torch.tensor([[1., 2], [2, 1]]), torch.tensor([0, 1]), 2).tolist() == [True, False]
    torch.manual_seed(0)
    costs, cells = torch.rand(2, 300), torch.randint(0, 40, (300,))
    cells[:40] = torch.arange(40)
    assert torch.equal(criterion(costs, cells, 40), ~criterion(costs.flip(0), cells, 40))
    order = torch.randperm(300)
    assert torch.equal(criterion(costs, cells, 40), criterion(costs[:, order], cells[order], 40))
    assert criterion(costs[:1].expand(2, -1), cells, 40).all()  # identical networks: the first


def test_random_draws_from_the_generator():
    torch.manual_seed(3)
    draws = RandomCriterion()(torch.rand(2, 1), torch.zeros(1, dtype=torch.long), 10_000)
    assert 0.45 < draws.float().mean() < 0.55
    torch.manual_seed(3)
    assert RandomCriterion(1)(COSTS, CELLS, 3).all() and not RandomCriterion(0.)(COSTS, CELLS, 3).any()


def test_registered_and_bad_values():
    for name in ('StdMeanCriterion', 'FisherCriterion', 'MeanCostCriterion', 'FixedCriterion', 'RandomCriterion'):
        assert TASK_UTILS.get(name) is getattr(criteria, name)
    with pytest.raises(ValueError, match="network: found 'third'"):
        FixedCriterion('third')
    with pytest.raises(ValueError, match='first_probability: found 2'):
        RandomCriterion(2)
