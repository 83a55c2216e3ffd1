r"""Which of two networks assigns: the criteria of co-learning.

A *decision* is about a set of candidates, whose costs under both networks are known; the network
with the higher :math:`\rho` assigns for both. Where :math:`\rho` is equal the lower mean cost
decides, and where that is equal too the first network does. A set of one candidate has
:math:`\rho = 0` in both networks, so its lower cost wins, as in the paper's code.

Needs nothing but torch. Costs of all decisions of a batch come flat: ``costs`` (N, A) under N
networks, ``cells`` (A,) the decision that each candidate belongs to, in 0..``num_cells`` - 1. All
sums are in float64.

Source: Nguyen et al., "Improving Object Detection by Label Assignment Distillation", WACV 2022.
"""
import torch
from torch import Tensor

from .gmm import fit_two_gaussians

NETWORKS = ('first', 'second')


def mean_cost(costs: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    """Mean cost (N, num_cells) of each decision's candidates; 0 where there are none."""
    count = torch.bincount(cells, minlength=num_cells).clamp(min=1)  # (num_cells,)
    return _sums(costs.double(), cells, num_cells) / count


def std_over_mean(costs: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    r""":math:`\rho = std(c) / mean(c)`, (N, num_cells).

    The biased deviation: the unbiased one multiplies both networks' :math:`\rho` by one factor, which
    changes no decision, and is not defined for one candidate. Costs are not negative; 0 where all
    are 0.
    """
    mean = mean_cost(costs, cells, num_cells)
    count = torch.bincount(cells, minlength=num_cells).clamp(min=1)
    squares = (costs.double() - mean[:, cells]).square()  # (N, A)
    std = (_sums(squares, cells, num_cells) / count).sqrt()
    return std / mean.clamp(min=torch.finfo(torch.float64).tiny)


def fisher(costs: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    r""":math:`\rho = (\mu_+ - \mu_-)^2 / (\sigma_+^2 + \sigma_-^2)`, (N, num_cells).

    Means and variances are those of a mixture of two Gaussians, fitted to the costs of each decision
    under each network, all in one call. 0 for fewer than two candidates.

    :math:`\rho` has no unit, but PAA's fit, which begins with variances of 1 and stops by a threshold
    on the likelihood, does depend on the scale: of costs within about 1 of each other it leaves one
    group. So each set is divided by its own standard deviation first (ours; the paper does not say).
    """
    networks = len(costs)
    mean = mean_cost(costs, cells, num_cells)
    count = torch.bincount(cells, minlength=num_cells).clamp(min=1)
    centred = costs.double() - mean[:, cells]  # (N, A)
    std = (_sums(centred.square(), cells, num_cells) / count).sqrt()
    spread = std > 1e-6 * mean.abs()  # below it lies the rounding of float32 costs
    costs = centred / torch.where(spread, std, 1)[:, cells]
    sizes = torch.bincount(cells, minlength=num_cells)  # (num_cells,)
    width = int(sizes.max()) if num_cells else 0
    order = cells.argsort(stable=True)  # (A,)
    place = torch.arange(len(order), device=cells.device) - (sizes.cumsum(0) - sizes)[cells[order]]
    table = costs.new_zeros(networks, num_cells, width)
    table[:, cells[order], place] = costs[:, order]
    fit = fit_two_gaussians(table.view(networks * num_cells, width), sizes.repeat(networks))
    rho = (fit.means[:, 1] - fit.means[:, 0]).square() / fit.variances.sum(1)
    return rho.view(networks, num_cells)


def first_is_better(rho: Tensor, means: Tensor) -> Tensor:
    """Mask (num_cells,): the first network has the higher ``rho``, or the lower mean cost on a tie.

    Args:
        rho, means: (2, num_cells).
    """
    return (rho[0] > rho[1]) | ((rho[0] == rho[1]) & (means[0] <= means[1]))


def _sums(values: Tensor, cells: Tensor, num_cells: int) -> Tensor:
    """Sums (N, num_cells) of values (N, A) by cell."""
    return values.new_zeros(len(values), num_cells).index_add_(1, cells, values)


class StdMeanCriterion:
    """The network whose costs differ more among the candidates: :func:`std_over_mean`."""

    def __call__(self, costs: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        """Mask (num_cells,): the first network assigns.

        Args:
            costs: (2, A), under the first and the second network; finite.
            cells: (A,), in 0..``num_cells`` - 1.
        """
        return first_is_better(std_over_mean(costs, cells, num_cells), mean_cost(costs, cells, num_cells))


class FisherCriterion:
    """The network whose costs fall more clearly into two groups: :func:`fisher`."""

    def __call__(self, costs: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        """As :meth:`StdMeanCriterion.__call__`."""
        return first_is_better(fisher(costs, cells, num_cells), mean_cost(costs, cells, num_cells))


class MeanCostCriterion:
    """The network with the lower mean cost; for comparison."""

    def __call__(self, costs: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        """As :meth:`StdMeanCriterion.__call__`."""
        means = mean_cost(costs, cells, num_cells)
        return first_is_better(-means, means)


class FixedCriterion:
    """Always the same network: LAD with a teacher that is trained beside its student.

    Args:
        network (str): 'first' or 'second'.

    Raises:
        ValueError: another name.
    """

    def __init__(self, network: str) -> None:
        if network not in NETWORKS:
            raise ValueError(f'network: found {network!r}; \'first\' or \'second\' is expected')
        self.network = network

    def __call__(self, costs: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        """As :meth:`StdMeanCriterion.__call__`."""
        return torch.full((num_cells,), self.network == 'first', device=cells.device)


class RandomCriterion:
    """Draws from torch's generator on the CPU, one number a decision; for comparison.

    Args:
        first_probability (float): of the first network.

    Raises:
        ValueError: not in 0..1.
    """

    def __init__(self, first_probability: float = 0.5) -> None:
        if not isinstance(first_probability, (int, float)) or not 0 <= first_probability <= 1:
            raise ValueError(f'first_probability: found {first_probability!r}; a number from 0 to 1 is expected')
        self.first_probability = first_probability

    def __call__(self, costs: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        """As :meth:`StdMeanCriterion.__call__`."""
        return (torch.rand(num_cells) < self.first_probability).to(cells.device)
