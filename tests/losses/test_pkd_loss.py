"""PKD against the correlation coefficient, computed by itself."""
import pytest
import torch
from loss_memory import saved_bytes

from kd_det.losses import PKDLoss, pkd_loss
from kd_det.losses.features import channels_first, standardised


def features(seed, shape=(3, 4, 5, 6), dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_one_minus_the_mean_correlation_of_channels():
    guided, hint = features(0), features(1)
    by_hand = 0.0
    for c in range(guided.shape[1]):
        by_hand += float(torch.corrcoef(torch.stack([guided[:, c].flatten(), hint[:, c].flatten()]))[0, 1])
    assert float(pkd_loss(guided, hint)) == pytest.approx(1 - by_hand / guided.shape[1], abs=1e-5)


def test_scale_and_offset_of_channels_play_no_part():
    guided, hint = features(0), features(1)
    scale, offset = features(2, (1, 4, 1, 1)).abs() + 0.1, features(3, (1, 4, 1, 1))
    assert float(pkd_loss(guided * scale + offset, hint * 7)) == pytest.approx(float(pkd_loss(guided, hint)), abs=1e-5)
    assert float(pkd_loss(guided, guided * 3 + 1)) == pytest.approx(0, abs=1e-8)
    assert float(pkd_loss(guided, -guided)) == pytest.approx(2, abs=1e-4)


def test_gradients_in_float64_and_none_for_the_teacher():
    guided, hint = features(0, (2, 2, 3, 3)).requires_grad_(), features(1, (2, 2, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: pkd_loss(v, hint), guided)
    pkd_loss(guided, hint).backward()
    assert hint.grad is None


def test_constant_channels_and_single_values_are_finite():
    for shape in ((2, 3, 4, 4), (1, 3, 1, 1)):
        guided = torch.ones(shape, requires_grad=True)
        loss = pkd_loss(guided, features(0, shape, torch.float32))
        loss.backward()
        assert loss.isfinite() and bool(guided.grad.isfinite().all())


def test_places_outside_the_mask_play_no_part():
    guided, hint = features(0, dtype=torch.float32), features(1, dtype=torch.float32)
    mask = torch.ones(3, 1, 5, 6, dtype=torch.bool)
    mask[1, :, 3:] = False
    expected = pkd_loss(guided, hint, mask)
    for tensor in (guided, hint):
        tensor[1, :, 3:] = float('nan')
    assert torch.equal(pkd_loss(guided, hint, mask), expected) and expected.isfinite()
    assert float(pkd_loss(guided, hint, torch.zeros_like(mask))) == 0


def test_half_precision_is_summed_in_float32():
    guided, hint = (1e4 * features(seed, dtype=torch.float32) for seed in (0, 1))
    loss = PKDLoss(loss_weight=10.0)(guided.half(), hint.half())
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(10 * float(pkd_loss(guided, hint)), rel=1e-2)
    with pytest.raises(ValueError, match='loss_weight'):
        PKDLoss(loss_weight=-1)
    with pytest.raises(ValueError, match='shapes'):
        pkd_loss(guided, hint[:, :2])


def test_tokens_and_vectors_have_their_channels_where_they_have_them():
    maps, hint = features(0, (3, 4, 5, 6)), features(1, (3, 4, 5, 6))
    tokens = [one.flatten(2).transpose(1, 2) for one in (maps, hint)]       # (N, L, C)
    assert float(pkd_loss(*tokens)) == pytest.approx(float(pkd_loss(maps, hint)), rel=1e-12)
    mask = torch.rand(len(maps), 1, *maps.shape[2:]) > 0.4
    masked = pkd_loss(*tokens, mask.flatten(2).transpose(1, 2))
    assert float(masked) == pytest.approx(float(pkd_loss(maps, hint, mask)), rel=1e-12)
    rows = [one.reshape(-1, 4) for one in tokens]                           # (N L, C)
    assert float(pkd_loss(*rows)) == pytest.approx(float(pkd_loss(maps, hint)), rel=1e-12)


def test_a_loop_over_channels_with_a_mask():
    guided, hint = features(0), features(1)
    mask = features(2, (3, 1, 5, 6)) > 0
    total = 0.0
    for c in range(4):
        ours, theirs = ([float(one[n, c, y, x]) for n in range(3) for y in range(5) for x in range(6)
                         if mask[n, 0, y, x]]
                        for one in (guided, hint))
        z = []
        for values in (ours, theirs):
            mean = sum(values) / len(values)
            deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
            z.append([(v - mean) / (deviation + 1e-6) for v in values])
        total += sum((a - b) ** 2 for a, b in zip(*z)) / (2 * len(ours))
    assert float(pkd_loss(guided, hint, mask)) == pytest.approx(total / 4, rel=1e-12)


@pytest.mark.parametrize('masked', [False, True])
def test_the_slope_in_closed_form_is_autograds_of_the_formula(masked, monkeypatch):
    monkeypatch.setattr('kd_det.losses.recompute.CHUNK_CPU', 100)  # a channel at a time
    guided, hint = features(0).requires_grad_(), features(1)
    guided.data[:, 2] = 3.0  # a channel without direction
    hint[:, 1] = -1.0
    mask = features(2, (3, 1, 5, 6)) > 0 if masked else None
    flat = None if mask is None else mask.flatten(1)
    count = 90 if mask is None else int(mask.sum())
    ours, theirs = (standardised(channels_first(one), flat) for one in (guided, hint))
    expected = (ours - theirs).square().sum() / (2 * count * 4)
    slope, = torch.autograd.grad(3 * expected, guided)
    loss = pkd_loss(guided, hint, mask)
    (3 * loss).backward()
    assert float(loss) == pytest.approx(float(expected), rel=1e-12) and slope.any()
    torch.testing.assert_close(guided.grad, slope, rtol=1e-10, atol=1e-14)


def test_channels_that_are_constant_up_to_rounding_count_as_constant():
    hint = features(0, dtype=torch.float32)
    exact, rounded = torch.full_like(hint, 1.0), torch.full_like(hint, 1e4 / 3)  # a mean of the latter rounds
    for guided in (exact, rounded):
        guided = guided.requires_grad_()
        loss = pkd_loss(guided, hint)
        loss.backward()
        assert loss.item() == pytest.approx(0.5, rel=1e-4) and not guided.grad.any()


def test_masks_that_do_not_fit_are_refused():
    guided = features(0)
    for mask, message in ((torch.ones(3, 1, 5, 6), 'bool'), (torch.ones(3, 5, 6, dtype=torch.bool), r'\(N, 1, H, W\)'),
                          (torch.ones(3, 4, 5, 6, dtype=torch.bool), 'does not fit')):
        with pytest.raises(ValueError, match=message):
            pkd_loss(guided, guided, mask)


def test_backward_keeps_the_features_alone():
    guided, hint = features(0, (2, 8, 20, 30)).half().requires_grad_(), features(1, (2, 8, 20, 30)).half()
    assert saved_bytes(pkd_loss, guided, hint) <= 2.01 * hint.numel() * hint.element_size()
