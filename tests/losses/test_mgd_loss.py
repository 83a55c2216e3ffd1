"""MGD: its formula by loops, its masks, and a random state of its own."""
import pytest
import torch

from kd_det.losses import MGDLoss, mgd_loss
from kd_det.losses.mgd import random_places


def maps(seed, shape=(2, 3, 4, 5), dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def convolved(feature, conv):
    """A 3x3 convolution by loops, zeros around."""
    channels, height, width = feature.shape
    out = torch.zeros(conv.out_channels, height, width)
    for o in range(conv.out_channels):
        for y in range(height):
            for x in range(width):
                total = conv.bias[o].item()
                for c in range(channels):
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            if 0 <= y + dy < height and 0 <= x + dx < width:
                                total += conv.weight[o, c, dy + 1, dx + 1].item() * float(feature[c, y + dy, x + dx])
                out[o, y, x] = total
    return out


def test_a_loop_over_the_formula():
    guided, hint = maps(0), maps(1)
    module = MGDLoss(3, mask_ratio=0.4, loss_weight=0.5, seed=3)
    first, _, last = module.generator.layers
    torch.nn.init.constant_(first.bias, 0.1)
    keep = random_places(2, (4, 5), 0.4, 3, 0)
    expected = 0.0
    for n in range(2):
        hidden = guided[n].clone()
        for y in range(4):
            for x in range(5):
                if not keep[n, 0, y, x]:
                    hidden[:, y, x] = 0.0  # all channels of a place
        expected += float((convolved(convolved(hidden, first).clamp(min=0), last) - hint[n]).square().sum())
    assert module(guided, hint).item() == pytest.approx(0.5 * expected / 2, rel=1e-5)


def test_share_of_hidden_places_and_one_mask_for_every_call():
    keep = random_places(4, (100, 100), 0.65, 0)
    assert keep.shape == (4, 1, 100, 100) and keep.float().mean().item() == pytest.approx(0.35, abs=0.01)
    assert random_places(1, (30, 30), 0.0, 0).all()
    masks = [random_places(2, (8, 8), 0.5, seed, draw) for seed in (0, 1) for draw in (0, 1)]
    assert not any(torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    module = MGDLoss(3)
    assert module(maps(0), maps(1)) != module(maps(0), maps(1))


def test_the_global_random_state_is_neither_read_nor_changed():
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        values.append(MGDLoss(3)(maps(0), maps(1)).item())
        assert torch.equal(torch.get_rng_state(), before)
    assert values[0] == values[1]


def test_a_resumed_run_goes_on_with_the_masks_where_it_was():
    module, other = MGDLoss(3), MGDLoss(3)
    module(maps(0), maps(1))
    state = module.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())  # nothing that a safe load refuses
    other.load_state_dict(state, strict=True)
    assert torch.equal(other(maps(0), maps(1)), module(maps(0), maps(1)))


def test_four_images_are_the_mean_of_two_and_two_for_given_masks():
    guided, hint = maps(0, (4, 3, 4, 5)), maps(1, (4, 3, 4, 5))
    module = MGDLoss(3, mask_ratio=0.0)
    torch.testing.assert_close(module(guided, hint), sum(module(guided[i:i + 2], hint[i:i + 2]) for i in (0, 2)) / 2)


def test_garbage_outside_the_mask_plays_no_part():
    guided, hint = maps(0), maps(1)
    mask = torch.ones(2, 1, 4, 5, dtype=torch.bool)
    mask[1, :, 2:] = False
    expected = MGDLoss(3)(guided, hint, mask)
    guided[1, :, 2:], hint[1, :, 2:] = float('inf'), float('nan')
    guided.requires_grad_()
    loss = MGDLoss(3)(guided, hint, mask)
    loss.backward()
    assert torch.equal(loss, expected) and guided.grad.isfinite().all() and not guided.grad[1, :, 2:].any()
    everywhere = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    assert torch.equal(MGDLoss(3)(maps(0), maps(1), everywhere), MGDLoss(3)(maps(0), maps(1)))


def test_gradcheck_and_a_generator_that_learns():
    guided, hint = (maps(seed, (2, 2, 3, 3), torch.float64).requires_grad_() for seed in (0, 1))
    module = MGDLoss(2, loss_weight=0.1).double()

    def loss(feature):
        module.draws = 0
        return module(feature, hint)

    assert torch.autograd.gradcheck(loss, guided)
    loss(guided).backward()
    assert hint.grad is None and all(p.grad.any() for p in module.parameters())


def test_sum_over_what_is_compared():
    generated, hint = maps(0), maps(1)
    mask = maps(2, (2, 1, 4, 5)) > 0
    expected = [sum((float(generated[n, c, y, x]) - float(hint[n, c, y, x])) ** 2
                    for c in range(3) for y in range(4) for x in range(5) if mask[n, 0, y, x]) for n in range(2)]
    torch.testing.assert_close(mgd_loss(generated, hint, mask), torch.tensor(expected))


def test_refusals():
    with pytest.raises(ValueError, match=r'mask_ratio must be less than 1, found 1'):
        MGDLoss(3, mask_ratio=1.0)
    with pytest.raises(ValueError, match=r'maps \(N, C, H, W\), found \(2, 3\)'):
        MGDLoss(3)(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r'built for \(N, 3, h, w\)'):
        MGDLoss(3)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
