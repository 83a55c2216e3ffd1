"""The batched mixtures: against scikit-learn, by hand, and whatever a batch may contain."""
import math
import warnings

import pytest
import torch

from kd_det.assignment.gmm import fit_two_gaussians
from kd_det.assignment.paa_separation import lowest_per_level, paa_positives, separate

pytestmark = pytest.mark.filterwarnings('error')


def random_problems(num: int, width: int, seed: int,
                    shortest: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two clumps of costs a row, rows of any length, garbage as padding."""
    generator = torch.Generator().manual_seed(seed)
    far = torch.rand(num, width, generator=generator) > torch.rand(num, 1, generator=generator)
    costs = (torch.randn(num, width, generator=generator).abs() * 0.3
             + far * torch.rand(num, 1, generator=generator) * 2 + 0.5)
    lengths = torch.randint(shortest, width + 1, (num,), generator=generator)
    padding = torch.arange(width) >= lengths[:, None]
    return costs.masked_fill(padding, math.nan), lengths


def sklearn_fit(costs: torch.Tensor):
    """The mixture that MMDetection's PAAHead fits to float32 costs (K,)."""
    np = pytest.importorskip('numpy')
    mixture = pytest.importorskip('sklearn.mixture')
    data = costs.view(-1, 1).numpy()
    model = mixture.GaussianMixture(
        2, covariance_type='diag', weights_init=np.array([0.5, 0.5]),
        means_init=np.array([data.min(), data.max()]).reshape(2, 1),
        precisions_init=np.ones((2, 1)))
    return model.fit(data), data


def paa_rule(assignment: torch.Tensor, scores: torch.Tensor) -> list[int]:
    """Positives of one object as a list, from costs in ascending order, in plain Python."""
    low = [i for i, component in enumerate(assignment.tolist()) if component == 0]
    return low[:1 + max(range(len(low)), key=lambda i: scores[low[i]])] if low else []


def test_parameters_steps_and_positives_are_those_of_scikit_learn():
    costs, lengths = random_problems(60, 45, seed=1, shortest=2)
    costs = costs.sort(1).values  # nan last
    fit = fit_two_gaussians(costs, lengths)
    positive = separate(costs, fit)
    for i, length in enumerate(lengths.tolist()):
        model, data = sklearn_fit(costs[i, :length])
        assert fit.iterations[i] == model.n_iter_
        for mine, theirs in ((fit.means, model.means_[:, 0]), (fit.weights, model.weights_),
                             (fit.variances, model.covariances_[:, 0])):
            torch.testing.assert_close(mine[i], torch.from_numpy(theirs), rtol=1e-5, atol=1e-7)
        scores = torch.from_numpy(model.score_samples(data))
        torch.testing.assert_close(fit.scores[i, :length], scores, rtol=1e-5, atol=1e-5)
        expected = paa_rule(torch.from_numpy(model.predict(data)), scores)
        assert positive[i].nonzero().flatten().tolist() == expected


def test_one_step_by_hand():
    # Costs 0, 0, 2; start N(0, 1) and N(2, 1) with weights 1/2. At 0 the posterior of the second
    # is e^-2 / (1 + e^-2) = q, at 2 it is 1 - q.
    q = math.exp(-2) / (1 + math.exp(-2))
    fit = fit_two_gaussians(torch.tensor([[0., 0., 2.]], dtype=torch.float64), torch.tensor([3]),
                            max_iter=1, reg_covar=0.)
    low, high = 2 * (1 - q) + q, 2 * q + (1 - q)
    means = [2 * q / low, 2 * (1 - q) / high]
    variances = [4 * q / low - means[0]**2, 4 * (1 - q) / high - means[1]**2]
    assert fit.means[0].tolist() == pytest.approx(means, rel=1e-12)
    assert fit.variances[0].tolist() == pytest.approx(variances, rel=1e-12)
    assert fit.weights[0].tolist() == pytest.approx([low / 3, high / 3], rel=1e-12)
    density = sum(w * math.exp(-m**2 / (2 * v)) / math.sqrt(2 * math.pi * v)
                  for w, m, v in zip([low / 3, high / 3], means, variances))
    assert fit.scores[0, 0].item() == pytest.approx(math.log(density), rel=1e-12)
    assert fit.log_likelihood.item() == pytest.approx(fit.scores.mean().item(), rel=1e-12)
    assert fit.iterations.item() == 1 and not fit.converged.item()


def test_likelihood_never_falls_and_the_stopping_rule_is_the_gain_per_step():
    costs, lengths = random_problems(20, 30, seed=2, shortest=5)
    costs = costs.double()
    fits = [fit_two_gaussians(costs, lengths, tol=0., max_iter=n) for n in range(1, 31)]
    likelihood = torch.stack([fit.log_likelihood for fit in fits])  # (30, P), after each step
    gains = likelihood.diff(dim=0)  # (29, P)
    assert gains.min() > -1e-5  # reg_covar makes EM monotone only up to its own size
    stopped = fit_two_gaussians(costs, lengths, tol=1e-3)
    # Row n of gains is update n + 2 over update n + 1; step n + 3 is the first to see it.
    checked = 0
    for i, steps in enumerate(stopped.iterations.tolist()):
        small = [n + 3 for n in range(29) if abs(gains[n, i]) < 1e-3]
        if steps > 2 and small:
            checked += 1
            assert steps == small[0]
            torch.testing.assert_close(stopped.means[i], fits[steps - 1].means[i])
    assert checked >= 15


@pytest.mark.parametrize('threads', [1, 2])
def test_a_problem_does_not_depend_on_its_batch_in_a_single_bit(threads):
    costs, lengths = random_problems(150, 70, seed=3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = fit_two_gaussians(costs, lengths)
        for i in range(0, 150, 7):
            width = int(lengths[i])
            alone = fit_two_gaussians(costs[i:i + 1, :width], lengths[i:i + 1])
            for name, mine, its in zip(together._fields, together, alone):
                mine = mine[i:i + 1, :width] if name in ('assignment', 'scores') else mine[i:i + 1]
                assert torch.equal(mine, its), (name, i)
    finally:
        torch.set_num_threads(before)


def test_order_of_costs_and_of_problems_plays_no_part():
    generator = torch.Generator().manual_seed(4)
    costs, lengths = random_problems(40, 33, seed=4, shortest=33)
    rows, columns = torch.randperm(40, generator=generator), torch.randperm(33, generator=generator)
    fit = fit_two_gaussians(costs, lengths)
    moved = fit_two_gaussians(costs[rows][:, columns], lengths)
    torch.testing.assert_close(moved.means, fit.means[rows])
    torch.testing.assert_close(moved.variances, fit.variances[rows], rtol=1e-5, atol=1e-12)
    assert torch.equal(separate(costs[rows][:, columns], moved),
                       separate(costs, fit)[rows][:, columns])


def test_degenerate_problems():
    costs = torch.tensor([[0.7, 0.7, 0.7], [0.3, 9., 9.], [9., 9., 9.], [0.2, 5., math.nan],
                          [1.5, 1.5, 1.5]])
    lengths = torch.tensor([3, 1, 0, 2, 2])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        fit = fit_two_gaussians(costs, lengths)
        positive = separate(costs, fit)
    # Equal costs are all alike; one cost or none gives no positive; two far apart give the lower.
    assert positive.tolist() == [[True] * 3, [False] * 3, [False] * 3, [True, False, False],
                                 [True, True, False]]
    assert fit.iterations[1:3].tolist() == [0, 0]
    assert fit.assignment[3].tolist() == [0, 1, -1] and fit.scores[3, 2] == -math.inf
    for part in (fit.means, fit.variances, fit.weights, fit.log_likelihood):
        assert part.isfinite().all()
    for shape in ((0, 0), (0, 5), (3, 0)):
        empty = torch.zeros(shape)
        fit = fit_two_gaussians(empty, torch.zeros(shape[0], dtype=torch.long))
        assert fit.means.shape == (shape[0], 2)
        assert separate(empty, fit).shape == shape


def test_variances_that_rounding_drives_below_zero_are_fitted_with_exact_squares():
    generator = torch.Generator().manual_seed(5)
    offset = 50 * torch.rand(200, 1, generator=generator) + 5
    # steps of float32 are 4e-7 to 4e-6 here
    costs = offset + 1e-4 * torch.rand(200, 9, generator=generator)
    lengths = torch.full((200,), 9)
    raised = 0
    for row in costs:
        try:
            sklearn_fit(row)
        except ValueError:
            raised += 1
    assert raised > 10  # what this test is about
    fit = fit_two_gaussians(costs, lengths)
    exact = fit_two_gaussians(costs.double(), lengths)
    assert (fit.variances > 0).all() and fit.scores.isfinite().all()
    same = (fit.means == exact.means).all(1)
    assert same.sum() >= raised  # the others kept their float32 squares


def test_half_precision_costs_are_taken_at_their_value():
    costs, lengths = random_problems(10, 20, seed=6)
    half = fit_two_gaussians(costs.half(), lengths)
    exact = fit_two_gaussians(costs.half().double(), lengths)
    assert all(torch.equal(a, b) for a, b in zip(half, exact))


@pytest.mark.parametrize(('costs', 'lengths', 'names'), [
    (torch.zeros(3), torch.tensor([1, 1, 1]), 'costs must be .* shape'),
    (torch.zeros(2, 3, dtype=torch.long), torch.tensor([1, 1]), 'costs must be a floating'),
    (torch.zeros(2, 3), torch.tensor([1]), 'lengths must hold one integer'),
    (torch.zeros(2, 3), torch.tensor([1, 4]), 'lengths must lie in 0..3.*found 1..4'),
    (torch.tensor([[1., math.inf]]), torch.tensor([2]), 'costs must be finite'),
])
def test_bad_input_is_named(costs, lengths, names):
    with pytest.raises(ValueError, match=names):
        fit_two_gaussians(costs, lengths)


def test_separation_stops_at_the_densest_sample_of_the_low_component():
    costs = torch.tensor([[0.1, 0.2, 0.3, 0.4, 2.0]])
    fit = fit_two_gaussians(costs, torch.tensor([5]))
    fit = fit._replace(assignment=torch.tensor([[0, 0, 0, 0, 1]]),
                       scores=torch.tensor([[0.1, 0.5, 0.9, 0.2, 3.0]]).double())
    assert separate(costs, fit).tolist() == [[True, True, True, False, False]]
    empty = fit._replace(assignment=torch.ones(1, 5, dtype=torch.long))
    assert not separate(costs, empty).any()


def test_lowest_per_level_keeps_the_cheapest_of_each_level():
    costs = torch.tensor([5., 1., 3., 2., 4., 9., 0.5, 7.])
    gts = torch.tensor([0, 0, 0, 0, 2, 2, 2, 0])
    levels = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1])
    found = lowest_per_level(costs, gts, levels, num_gts=4, num_levels=2, topk=2)
    assert found.lengths.tolist() == [4, 0, 3, 0]
    assert found.costs[0].tolist() == [1., 2., 3., 7.]
    assert found.indices[0].tolist() == [1, 3, 2, 7]
    assert found.indices[2].tolist() == [6, 4, 5, -1]
    assert found.costs[1].isinf().all()


def test_images_in_one_fit_get_what_they_get_alone():
    generator = torch.Generator().manual_seed(7)
    sizes = [40, 0, 1, 70]
    costs = [torch.rand(n, generator=generator) * 3 for n in sizes]
    gts = [torch.randint(0, 4, (n,), generator=generator) for n in sizes]
    levels = [torch.randint(0, 3, (n,), generator=generator) for n in sizes]
    together = paa_positives(costs, gts, levels, num_levels=3)
    assert [len(mask) for mask in together] == sizes
    for i in range(len(sizes)):
        alone, = paa_positives(costs[i:i + 1], gts[i:i + 1], levels[i:i + 1], num_levels=3)
        assert torch.equal(together[i], alone)
    assert not together[2].any()  # a single candidate is no positive
    assert together[0].any() and not together[0].all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_decides_as_the_cpu():
    costs, lengths = random_problems(200, 45, seed=8)
    cpu = fit_two_gaussians(costs, lengths)
    gpu = fit_two_gaussians(costs.cuda(), lengths.cuda())
    assert torch.equal(gpu.iterations.cpu(), cpu.iterations)
    assert torch.equal(separate(costs.cuda(), gpu).cpu(), separate(costs, cpu))
