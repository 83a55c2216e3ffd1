"""CWD: a loop over its formula, what it cannot see, its mask."""
import math

import pytest
import torch
from loss_memory import saved_bytes

from kd_det.losses import CWDLoss, cwd_loss


def maps(seed, shape=(2, 3, 4, 5), dtype=torch.float64):
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_loops(guided, hint, temperature, mask=None):
    images, channels, height, width = guided.shape
    total = 0.0
    for n in range(images):
        cells = [(y, x) for y in range(height) for x in range(width) if mask is None or mask[n, 0, y, x]]
        for c in range(channels):
            ours, theirs = ([math.exp(float(one[n, c, y, x]) / temperature) for y, x in cells]
                            for one in (guided, hint))
            for a, b in zip(ours, theirs):
                p, q = a / sum(ours), b / sum(theirs)
                total += q * math.log(q / p)
    return temperature**2 * total / (channels * images)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
@pytest.mark.parametrize('masked', [False, True])
def test_a_loop_over_the_formula(temperature, masked):
    guided, hint = maps(0), maps(1)
    mask = maps(2, (2, 1, 4, 5)) > 0 if masked else None
    expected = by_loops(guided, hint, temperature, mask)
    assert cwd_loss(guided, hint, temperature, mask=mask).item() == pytest.approx(expected, rel=1e-12)
    weighted = CWDLoss(temperature, loss_weight=5.0)(guided, hint, mask)
    assert weighted.item() == pytest.approx(5 * expected, rel=1e-12)


def test_standardised_it_is_the_formula_on_batch_normalised_features():
    guided, hint = maps(0), 100 * maps(1) + 7
    norm = torch.nn.BatchNorm2d(3, eps=1e-12, affine=False, track_running_stats=False).double()
    expected = by_loops(norm(guided), norm(hint), 1.0)
    # 1e-6 beside the deviation
    assert cwd_loss(guided, hint, standardise=True).item() == pytest.approx(expected, rel=1e-5)


def test_tokens_are_maps_in_another_order():
    guided, hint = maps(0), maps(1)
    tokens = [one.flatten(2).transpose(1, 2) for one in (guided, hint)]
    assert cwd_loss(*tokens).item() == pytest.approx(cwd_loss(guided, hint).item(), rel=1e-12)
    mask = torch.rand(len(guided), 1, *guided.shape[2:]) > 0.4
    masked = cwd_loss(*tokens, mask=mask.flatten(2).transpose(1, 2))
    assert masked.item() == pytest.approx(cwd_loss(guided, hint, mask=mask).item(), rel=1e-12)


def test_an_offset_of_a_channel_cannot_be_seen_and_an_equal_feature_teaches_nothing():
    hint = maps(1)
    guided = (hint + maps(2, (1, 3, 1, 1))).requires_grad_()
    loss = cwd_loss(guided, hint)
    loss.backward()
    assert abs(loss.item()) < 1e-12 and guided.grad.abs().max() < 1e-12
    guided = hint.float().requires_grad_()
    cwd_loss(guided, hint.float()).backward()
    assert guided.grad.abs().max() < 1e-7


@pytest.mark.parametrize('standardise', [False, True])
def test_gradcheck(standardise):
    guided, hint = maps(0, (2, 2, 3, 3)).requires_grad_(), maps(1, (2, 2, 3, 3)).requires_grad_()
    mask = maps(2, (2, 1, 3, 3)) > -1
    assert torch.autograd.gradcheck(lambda v: cwd_loss(v, hint, 2.0, standardise, mask), guided)
    cwd_loss(guided, hint, 2.0, standardise, mask).backward()
    assert hint.grad is None


def test_garbage_outside_the_mask_plays_no_part_nor_does_an_image_without_places():
    guided, hint = maps(0, dtype=torch.float32), maps(1, dtype=torch.float32)
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    mask[0, :, :2] = True
    expected = cwd_loss(guided, hint, 0.5, mask=mask)
    for one in (guided, hint):
        one[0, :, 2:], one[1] = float('nan'), float('inf')
    guided.requires_grad_()
    loss = cwd_loss(guided, hint, 0.5, mask=mask)
    loss.backward()
    assert torch.equal(loss, expected) and guided.grad.isfinite().all()


def test_backward_keeps_the_features_alone():
    guided, hint = maps(0, (2, 8, 20, 30)).half().requires_grad_(), maps(1, (2, 8, 20, 30)).half()
    assert saved_bytes(cwd_loss, guided, hint) <= 2.01 * hint.numel() * hint.element_size()


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r'found \(4, 3\): a softmax over one place is always 1'):
        cwd_loss(torch.zeros(4, 3), torch.zeros(4, 3))
