"""PKD against the correlation coefficient, computed by itself."""
import pytest
import torch

from kd_det.losses import PKDLoss, pkd_loss


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
