"""Losses, adapters, criteria and the mixture fit on drawn shapes and values: finite or a clear error, no input changed.
"""
import pytest
import torch
from every_loss import CHANNELS, LOSSES, arguments

pytest.importorskip('hypothesis', reason='hypothesis is not installed (pip install kd_det[test])')
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kd_det.adapters import ConvAdapter, GlobalContext, IdentityAdapter, LinearAdapter, align_scale
from kd_det.assignment import criteria
from kd_det.assignment.gmm import fit_two_gaussians
from kd_det.losses import background_mask, foreground_mask, reduce_loss

QUICK = settings(max_examples=10, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
CLEAR = (ValueError, TypeError)
MODULES = {name: make() for name, make in LOSSES.items()}
kinds = st.sampled_from(['normal', 'zero', 'constant', 'large', 'tiny', 'one spike', 'equal'])
dtypes = st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16])


def drawn(kind: str, dtype: torch.dtype, seed: int):
    """A maker of tensors of one kind; 'equal': every one of a shape is the same."""
    generator = torch.Generator().manual_seed(seed)

    def values(*shape):
        noise = torch.randn(*shape, generator=generator if kind != 'equal' else torch.Generator().manual_seed(seed))
        found = dict(normal=noise, zero=noise * 0, constant=noise * 0 + 0.3, large=noise * 2e3, tiny=noise * 1e-12,
                     equal=noise)
        if kind == 'one spike':
            found[kind] = noise.clone()
            found[kind].view(-1)[:1] = 5e3
        return found[kind].to(dtype)
    return values


def unchanged(tensors, function):
    """Call ``function``; no tensor is another afterwards, also where it raises."""
    before = [(tensor, tensor.detach().clone(), tensor._version) for tensor in tensors]
    try:
        return function()
    finally:
        for tensor, value, version in before:
            assert torch.equal(tensor.detach().nan_to_num(), value.nan_to_num()) and tensor._version == version


@pytest.mark.parametrize('name', LOSSES)
@QUICK
@given(kind=kinds, dtype=dtypes, rows=st.integers(0, 9), seed=st.integers(0, 10**6), weighted=st.booleans())
def test_losses(name, kind, dtype, rows, seed, weighted):
    loss = MODULES[name]
    if any(True for _ in loss.parameters()) and dtype == torch.float64:
        dtype = torch.float32  # parts that train are of the network's own precision
    tensors, more = arguments(loss, drawn(kind, dtype, seed), rows)
    student = tensors[0].clone().requires_grad_()
    if weighted and loss.compares != 'features' and rows:
        more['weight'] = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) * 2
    found = unchanged([student, *tensors[1:]], lambda: loss(student, *tensors[1:], **more))
    assert found.shape == () and bool(found.isfinite()), (float(found), kind)
    found.backward()
    if dtype != torch.float16:
        assert bool(student.grad.isfinite().all()), kind


@pytest.mark.parametrize('name', LOSSES)
@QUICK
@given(shape=st.lists(st.integers(0, 5), min_size=0, max_size=5),
       other=st.lists(st.integers(0, 5), min_size=0, max_size=5))
def test_losses_of_any_shape(name, shape, other):
    """A shape that does not fit is an error in words, not one of the formula's."""
    loss = MODULES[name]
    tensors, more = arguments(loss, drawn('normal', torch.float32, 0))
    student, teacher = torch.ones(shape, requires_grad=True), torch.ones(other)
    rest = [teacher] * (len(tensors) - 2)
    try:
        found = loss(student, teacher, *rest, **more)
    except CLEAR as error:
        assert 'found' in str(error), error
    else:
        assert shape == other and bool(found.isfinite()) and found.shape == ()


@QUICK
@given(kind=kinds, dtype=dtypes, size=st.tuples(*[st.integers(1, 9)] * 2), target=st.tuples(*[st.integers(1, 9)] * 2),
       resize=st.sampled_from(['pad', 'interpolate', 'none']), layers=st.integers(1, 2), seed=st.integers(0, 10**6))
def test_adapters_of_maps(kind, dtype, size, target, resize, layers, seed):
    feature = drawn(kind, torch.float32, seed)(2, CHANNELS, *size)
    for adapter in (ConvAdapter(CHANNELS, 3, num_layers=layers, resize=resize, norm='GN' if layers > 1 else None),
                    IdentityAdapter(CHANNELS, CHANNELS, resize=resize)):
        try:
            found = unchanged([feature], lambda adapter=adapter: adapter(feature, target_size=target))
        except CLEAR as error:
            assert str(size[0]) in str(error) and resize != 'interpolate'
        else:
            assert found.shape[2:] == target and bool(found.isfinite().all())


@QUICK
@given(kind=kinds, shape=st.lists(st.integers(0, 4), min_size=1, max_size=3), seed=st.integers(0, 10**6))
def test_linear_adapters(kind, shape, seed):
    rows = drawn(kind, torch.float32, seed)(*shape, CHANNELS)
    found = unchanged([rows], lambda: LinearAdapter(CHANNELS, 3, num_layers=2)(rows, target_size=tuple(shape[1:])))
    assert found.shape == (*shape, 3) and bool(found.isfinite().all())


@QUICK
@given(kind=kinds, dtype=dtypes, size=st.tuples(*[st.integers(1, 6)] * 2), other=st.tuples(*[st.integers(1, 6)] * 2),
       channels=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_the_scale_of_another_map_and_the_global_context(kind, dtype, size, other, channels, seed):
    values = drawn(kind, dtype, seed)
    student, teacher = values(2, CHANNELS, *size).requires_grad_(), values(2, channels, *other)
    try:
        found = unchanged([student, teacher], lambda: align_scale(student, teacher))
    except CLEAR as error:
        assert 'found' in str(error) and channels != CHANNELS
    else:
        assert found.shape == student.shape and found.dtype == dtype and bool(found.isfinite().all())
        found.float().sum().backward()
        assert bool(student.grad.isfinite().all()) or dtype == torch.float16
    context, feature = GlobalContext(CHANNELS), student.detach().float()
    assert bool(unchanged([feature], lambda: context(feature)).isfinite().all())


@settings(QUICK, max_examples=60)
@given(problems=st.integers(0, 20), width=st.integers(0, 12), kind=kinds, dtype=dtypes, seed=st.integers(0, 10**6))
def test_the_mixture_fit(problems, width, kind, dtype, seed):
    costs = drawn(kind, dtype, seed)(problems, width)
    lengths = torch.randint(0, width + 1, (problems,), generator=torch.Generator().manual_seed(seed))
    fit = unchanged([costs, lengths], lambda: fit_two_gaussians(costs, lengths))
    assert all(bool(part.isfinite().all()) for part in (fit.means, fit.variances, fit.weights))
    assert bool((fit.variances > 0).all())
    inside = torch.arange(width) < lengths[:, None]
    assert bool(((fit.assignment == -1) == ~inside).all()) and bool(fit.scores[inside].isfinite().all())


@QUICK
@given(costs=st.lists(st.lists(st.sampled_from([1.0, float('nan'), float('inf'), -1e30]), min_size=3, max_size=3),
                      min_size=1, max_size=4), lengths=st.lists(st.integers(-2, 5), min_size=1, max_size=4))
def test_the_mixture_fit_refuses_in_words(costs, lengths):
    table, counts = torch.tensor(costs), torch.tensor(lengths)
    inside = torch.arange(3) < counts[:, None] if len(costs) == len(lengths) else None
    sound = (inside is not None and bool(((counts >= 0) & (counts <= 3)).all())
             and bool((table.isfinite() | ~inside).all()))
    try:
        fit_two_gaussians(table, counts)
    except ValueError as error:
        assert not sound and ('lengths' in str(error) or 'costs must be finite' in str(error))
    else:
        assert sound


CRITERIA = [criteria.StdMeanCriterion(), criteria.FisherCriterion(), criteria.MeanCostCriterion(),
            criteria.FixedCriterion('second'), criteria.RandomCriterion()]


@pytest.mark.parametrize('criterion', CRITERIA, ids=lambda one: type(one).__name__)
@QUICK
@given(decisions=st.integers(0, 8), candidates=st.integers(0, 30), kind=kinds, dtype=dtypes, seed=st.integers(0, 10**6))
def test_criteria(criterion, decisions, candidates, kind, dtype, seed):
    candidates = candidates if decisions else 0
    costs = drawn(kind, dtype, seed)(2, candidates).abs()
    cells = torch.randint(0, max(decisions, 1), (candidates,), generator=torch.Generator().manual_seed(seed))
    found = unchanged([costs, cells], lambda: criterion(costs, cells, decisions))
    assert found.shape == (decisions,) and found.dtype == torch.bool


@QUICK
@given(boxes=st.lists(st.tuples(*[st.floats(-50, 150, width=32)] * 4), max_size=6),
       size=st.tuples(*[st.integers(1, 9)] * 2))
def test_foreground_and_background_are_shares(boxes, size):
    table = torch.tensor(boxes).reshape(-1, 4)
    mask = unchanged([table], lambda: foreground_mask([table], size, (90, 70)))
    assert mask.shape == (1, *size) and bool(((mask >= 0) & (mask <= 1)).all())
    background = background_mask(mask)
    assert float(background.sum()) == pytest.approx(1.0 if bool((mask == 0).any()) else 0.0, abs=1e-5)


@QUICK
@given(shape=st.lists(st.integers(0, 4), min_size=1, max_size=3), weights=st.lists(st.integers(0, 4), max_size=3),
       factor=st.one_of(st.none(), st.floats(-2, 1e3)), reduction=st.sampled_from(['none', 'mean', 'sum', 'most']))
def test_reduction(shape, weights, factor, reduction):
    loss, weight = torch.rand(shape), torch.rand(weights)
    try:
        found = unchanged([loss, weight], lambda: reduce_loss(loss, weight, reduction, factor))
    except CLEAR as error:
        assert any(word in str(error) for word in ('weight', 'avg_factor', 'reduction'))
    else:
        assert bool(found.isfinite().all())
