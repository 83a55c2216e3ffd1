"""Two-component Gaussian mixtures in one dimension, a whole batch of them at once.

The fit is the one that :class:`sklearn.mixture.GaussianMixture` makes for PAA (``covariance_type='diag'``; means,
weights and precisions given): the same EM steps, regularisation and stopping rule, applied to each problem on its own.
Needs nothing but torch and runs on the device of its input.
"""
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Inside, problems are columns and their costs are rows, both padded to a multiple of this many. On
# the CPU every element then takes the same (vectorised) path through a kernel wherever it lies, and
# sums associate alike, so what a problem gets does not depend on its batch in a single bit.
_LANES = 16
_EPSILON = 10 * torch.finfo(torch.float64).eps
# EM steps between two questions of how many problems are left, by kind of device. The host waits for the
# answer, which an accelerator pays for with an empty queue; what a fit gives does not depend on it.
_ASK_EVERY = {'cpu': 1}
_ASK_EVERY_ON_ACCELERATORS = 4


class TwoGaussians(NamedTuple):
    """P fitted mixtures; component 0 started at the lowest cost, component 1 at the highest.

    ``means``, ``variances``, ``weights``: (P, 2), float64. ``log_likelihood``: (P,), mean log density of the problem's
    costs. ``iterations``: (P,), EM steps taken, 0 where there were fewer than two costs. ``converged``: (P,), False
    where ``max_iter`` ended the fit. ``assignment``: (P, K), the likelier component of each cost (0 on a tie), -1 at
    padding. ``scores``: (P, K), log density of each cost under the mixture, -inf at padding.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor
    log_likelihood: Tensor
    iterations: Tensor
    converged: Tensor
    assignment: Tensor
    scores: Tensor


@torch.no_grad()
def fit_two_gaussians(costs: Tensor, lengths: Tensor, tol: float = 1e-3, max_iter: int = 100,
                      reg_covar: float = 1e-6) -> TwoGaussians:
    r"""Fit :math:`w_0 N(m_0, v_0) + w_1 N(m_1, v_1)` to each row of ``costs`` by EM.

    Start, as in PAA: means at the row's lowest and highest cost, weights 1/2, variances 1. One step, :math:`r_k(x)`
    being the posterior of component k at cost x:

    .. math:: n_k = \sum r_k + 10 \epsilon, \quad m_k = \sum r_k x / n_k, \quad
              v_k = \sum r_k x^2 / n_k - m_k^2 + reg, \quad w_k = n_k / (n_0 + n_1)

    A problem ends with the step whose mean log-likelihood (before the update) is less than ``tol`` from the previous
    step's, or with step ``max_iter``, and is frozen from then on.

    All arithmetic is in float64, but squares of costs are taken in the costs' own precision: that is what scikit-learn
    does to PAA's float32 costs, and it decides about one object in a thousand. Where such rounded squares make a
    variance non-positive (scikit-learn raises), the problem is fitted again with exact squares and variances of at
    least ``reg_covar``.

    Args:
        costs: (P, K), floating; entries from the row's length on are padding of any value.
        lengths: (P,), integers in 0..K. With fewer than two costs the start is returned.
        tol, max_iter, reg_covar: as in scikit-learn, with its defaults.

    Raises:
        ValueError: shapes or lengths do not fit together, or a cost is not finite.

    Source: Kim and Lee, PAA, ECCV 2020, sec. 3.2; constants as in MMDetection's ``PAAHead``.
    """
    _check(costs, lengths)
    num_problems, width = costs.shape
    problems = _Problems.pack(costs, lengths)
    theta, iterations, active = _run_em(problems, tol, max_iter, reg_covar)
    unsound = (~(theta[2] > 0)).any(0).nonzero().flatten()  # ~(>) catches nan too
    if len(unsound):
        exact = _Problems.pack(costs[unsound].double(), lengths[unsound])
        refit = _run_em(exact, tol, max_iter, reg_covar, least_variance=reg_covar)
        for result, part in zip((theta, iterations, active), refit):
            result[..., unsound] = part[..., :len(unsound)]
        problems.basis[2, :, unsound] = problems.basis[1, :, unsound].square()

    coefficients = torch.empty_like(theta)  # (3, 2, P')
    _quadratics(theta.unbind(), theta[1].square(), torch.empty_like(theta[0]),
                out=coefficients.unbind())
    coefficients[0] -= problems.count.log() + 0.5 * math.log(2 * math.pi)
    constant, linear, quadratic = coefficients[:, :, None]  # (2, 1, P') each
    ones, values, squares = problems.basis  # (K', P') each
    joint = torch.addcmul(constant, linear, values).addcmul_(quadratic, squares)  # (2, K', P')
    scores = torch.logaddexp(joint[0], joint[1])  # (K', P')
    mean_scores = (scores * ones).sum(0) / problems.count  # (P',)
    assignment = (joint[1] > joint[0]).long()  # (K', P')
    padding = ones[:width, :num_problems].T == 0  # (P, K)
    mass, means, variances = (part[:, :num_problems].T.contiguous() for part in theta)  # (P, 2)
    return TwoGaussians(
        means, variances,
        weights=mass / mass.sum(1, keepdim=True),
        log_likelihood=mean_scores[:num_problems],
        iterations=iterations[:num_problems],
        converged=~active[:num_problems],
        assignment=assignment[:width, :num_problems].T.masked_fill(padding, -1),
        scores=scores[:width, :num_problems].T.masked_fill(padding, -math.inf))


class _Problems(NamedTuple):
    """Problems as the P' columns of arrays with K' rows; zeros where there is no cost."""

    basis: Tensor  # (3, K', P'): 1, x, x^2 for each cost x
    basis_sums: Tensor  # (3, P')
    count: Tensor  # (P',), number of costs, but at least 1
    fitted: Tensor  # (P',), whether there are two costs or more
    start: Tensor  # (2, P'), lowest and highest cost
    start_squares: Tensor  # (2, P')

    @classmethod
    def pack(cls, costs: Tensor, lengths: Tensor) -> '_Problems':
        if costs.dtype not in (torch.float32, torch.float64):
            costs = costs.double()  # as scikit-learn does
        num_problems, width = costs.shape
        rows, columns = (max(1, -(-size // _LANES)) * _LANES for size in (width, num_problems))
        count = lengths.new_zeros(columns)  # (P',)
        count[:num_problems] = lengths
        valid = torch.arange(rows, device=costs.device)[:, None] < count  # (K', P')
        x = costs.new_zeros(rows, columns)  # (K', P')
        x[:width, :num_problems] = costs.T
        start = torch.stack([x.masked_fill(~valid, math.inf).amin(0),
                             x.masked_fill(~valid, -math.inf).amax(0)])  # (2, P')
        start.masked_fill_(count == 0, 0)
        x.masked_fill_(~valid, 0)
        basis = torch.stack([valid.double(), x.double(), (x * x).double()])  # (3, K', P')
        return cls(basis, basis.sum(1), count.clamp(min=1).double(), count > 1, start.double(),
                   (start * start).double())

    def select(self, columns: Tensor) -> '_Problems':
        return _Problems(*(part.index_select(-1, columns) for part in self))


class _Em:
    """EM steps on a set of problems.

    All buffers and the views into them are made once: on a small batch making them costs more than the arithmetic.
    Parameters are held as theta (3, 2, P'): masses n_k, means, variances.
    """

    def __init__(self, problems: _Problems, theta: Tensor, mean_squares: Tensor, reg_covar: float,
                 least_variance: float | None) -> None:
        self.problems, self.theta, self.mean_squares = problems, theta, mean_squares
        self.reg_covar, self.least_variance = reg_covar, least_variance
        self.parts = theta.unbind()  # mass, means, variances: (2, P') each
        self.mass, self.means, self.variances = self.parts
        self.moments = theta[1:]  # (2, 2, P')
        _, rows, columns = problems.basis.shape
        self.basis = problems.basis[:, None]  # (3, 1, K', P')
        _, self.values, self.squares = problems.basis  # (K', P') each
        self.shares = problems.basis[0] / problems.count  # (K', P'), 1 / n where there is a cost
        self.basis_means = problems.basis_sums / problems.count  # (3, P')
        self.coefficients = theta.new_empty(3, 2, columns)
        self.coefficient_parts = self.coefficients.unbind()  # (2, P') each
        self.first, self.second = self.coefficients.unbind(1)  # (3, P'), of components 0 and 1
        self.scale = theta.new_empty(2, columns)
        self.odds_coefficients = theta.new_empty(3, columns)
        self.constant, self.linear, self.quadratic = self.odds_coefficients  # (P',) each
        self.logits = theta.new_empty(2, rows, columns)
        self.minus_log_odds, self.log_odds = self.logits  # (K', P') each
        self.terms = theta.new_empty(7, rows, columns)  # r_k, r_k x, r_k x^2, log density
        self.weighted, self.excess = self.terms[:6].view(3, 2, rows, columns), self.terms[6]
        self.sums = theta.new_empty(7, columns)
        self.new_mass, self.mean_excess = self.sums[:2], self.sums[6]  # (2, P'), (P',)
        self.new_moments = self.sums[2:6].view(2, 2, columns)

    def step(self) -> Tensor:
        """Move theta by one step.

        Returns the mean log-likelihood (P',) under the old theta, without its constant
        - log n - log(2 pi) / 2, which has no part in the stopping rule.
        """
        _quadratics(self.parts, self.mean_squares, self.scale, out=self.coefficient_parts)
        torch.sub(self.second, self.first, out=self.odds_coefficients)
        torch.addcmul(self.constant, self.linear, self.values, out=self.log_odds)
        self.log_odds.addcmul_(self.quadratic, self.squares)
        torch.neg(self.log_odds, out=self.minus_log_odds)
        # log(e^a + e^b) = a + softplus(b - a); the sum of a is known in closed form
        F.softplus(self.log_odds, 1., 50., out=self.excess).mul_(self.shares)
        torch.mul(self.basis, self.logits.sigmoid_(), out=self.weighted)
        torch.sum(self.terms, 1, out=self.sums)
        log_likelihood = (self.first * self.basis_means).sum(0).add_(self.mean_excess)  # (P',)

        torch.add(self.new_mass, _EPSILON, out=self.mass)
        torch.div(self.new_moments, self.mass, out=self.moments)
        torch.mul(self.means, self.means, out=self.mean_squares)
        self.variances.sub_(self.mean_squares).add_(self.reg_covar)
        if self.least_variance is not None:
            self.variances.clamp_(min=self.least_variance)
        return log_likelihood

    def select(self, columns: Tensor) -> '_Em':
        return _Em(self.problems.select(columns), self.theta[..., columns],
                   self.mean_squares[:, columns], self.reg_covar, self.least_variance)


def _run_em(problems: _Problems, tol: float, max_iter: int, reg_covar: float,
            least_variance: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """EM until every problem has ended.

    Returns theta (3, 2, P') holding masses n_k, means and variances, the steps taken (P',), and which problems had not
    converged (P',). A variance that is not positive ends its problem, whose likelihood is nan from there on, and stays
    visible in theta.
    """
    start = problems.start  # (2, P')
    theta = torch.stack([0.5 * problems.count.expand_as(start), start, torch.ones_like(start)])
    iterations = torch.zeros_like(problems.fitted, dtype=torch.long)  # (P',)
    active = problems.fitted.clone()  # (P',)
    results = theta.clone(), iterations.clone(), active.clone()
    em = _Em(problems, theta.clone(), problems.start_squares.clone(), reg_covar, least_variance)
    here = torch.arange(len(active), device=active.device)  # (P',), the columns still worked on
    bound = torch.full_like(problems.count, -math.inf)  # (P',)
    ask_every = _ASK_EVERY.get(active.device.type, _ASK_EVERY_ON_ACCELERATORS)
    for step in range(max_iter):
        if step % ask_every == 0:
            left = int(active.sum())
            if not left:
                break
            if len(here) > 4 * _LANES and left <= len(here) // 2:  # below, it does not pay
                _store(results, here, (theta, iterations, active))
                keep = active.to(torch.uint8).argsort(descending=True, stable=True)
                keep = keep[:-(-left // _LANES) * _LANES]  # those left, then fillers
                here, em, theta = here[keep], em.select(keep), theta[..., keep]
                iterations, active, bound = iterations[keep], active[keep], bound[keep]
        previous, bound = bound, em.step()
        torch.where(active, em.theta, theta, out=theta)  # what has ended stays as it is
        iterations += active
        active &= previous.sub_(bound).abs_() >= tol  # nan compares False: ended
    _store(results, here, (theta, iterations, active))
    return results


def _store(results: tuple, columns: Tensor, parts: tuple) -> None:
    for result, part in zip(results, parts):
        result[..., columns] = part


def _quadratics(theta: tuple, mean_squares: Tensor, scale: Tensor, out: tuple) -> None:
    """log(n_k N(x; m_k, v_k)) + log(2 pi) / 2 as coefficients of 1, x and x^2, (2, P') each.

    ``scale`` (2, P') is overwritten with 1 / v_k.
    """
    mass, means, variances = theta  # (2, P') each
    constant, linear, quadratic = out  # (2, P') each
    torch.rsqrt(variances, out=scale)
    torch.mul(scale, mass, out=constant).log_()
    scale.mul_(scale)
    torch.mul(means, scale, out=linear)
    torch.mul(scale, -0.5, out=quadratic)
    constant.addcmul_(quadratic, mean_squares)


def _check(costs: Tensor, lengths: Tensor) -> None:
    if costs.dim() != 2 or not costs.is_floating_point():
        raise ValueError(f'costs must be a floating point tensor of shape (P, K), found '
                         f'{costs.dtype} of shape {tuple(costs.shape)}')
    if lengths.shape != costs.shape[:1] or lengths.is_floating_point():
        raise ValueError(f'lengths must hold one integer for each of the {len(costs)} rows of '
                         f'costs, found {lengths.dtype} of shape {tuple(lengths.shape)}')
    if not len(lengths):
        return
    inside = torch.arange(costs.shape[1], device=costs.device) < lengths[:, None]  # (P, K)
    in_range = ((lengths >= 0) & (lengths <= costs.shape[1])).all()
    finite = (costs.isfinite() | ~inside).all()
    in_range, finite = torch.stack([in_range, finite]).tolist()  # one wait for the device
    if not in_range:
        raise ValueError(f'lengths must lie in 0..{costs.shape[1]}, the number of columns of '
                         f'costs, found {lengths.min().item()}..{lengths.max().item()}')
    if not finite:
        raise ValueError('costs must be finite, found inf or nan: has the training diverged?')
