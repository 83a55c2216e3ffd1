"""FGD against loops over channels and places."""
import math

import pytest
import torch
from loss_memory import saved_bytes

from kd_det.losses import FGDLoss, fgd_loss, foreground_mask

SHAPE = (2, 3, 4, 5)
CANVAS = (32, 40)
BOXES = [torch.tensor([[0.0, 0.0, 16.0, 16.0], [8.0, 8.0, 30.0, 31.0]]), torch.zeros(0, 4)]


def maps(seed, shape=SHAPE, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def attention(feature, temperature):
    channels, height, width = feature.shape
    spatial = {(y, x): math.exp(sum(abs(float(feature[c, y, x])) for c in range(channels)) / channels / temperature)
               for y in range(height) for x in range(width)}
    channel = [math.exp(sum(abs(float(feature[c, y, x])) for y, x in spatial) / len(spatial) / temperature)
               for c in range(channels)]
    sums = sum(spatial.values()), sum(channel)
    return ({at: height * width * value / sums[0] for at, value in spatial.items()},
            [channels * value / sums[1] for value in channel])


def by_loops(guided, hint, foreground, temperature, alpha, beta, gamma):
    total = []
    for ours, theirs, mask in zip(guided, hint, foreground):
        spatial, channel = attention(ours, temperature)
        their_spatial, their_channel = attention(theirs, temperature)
        outside = sum(not mask[at] for at in spatial)
        loss = 0.0
        for at in spatial:
            weight = alpha * float(mask[at]) if mask[at] else beta / outside
            for c in range(len(channel)):
                loss += weight * their_spatial[at] * their_channel[c] * float(ours[c][at] - theirs[c][at]) ** 2
        loss += gamma * sum(abs(spatial[at] - their_spatial[at]) for at in spatial)
        loss += gamma * sum(abs(a - b) for a, b in zip(channel, their_channel))
        total.append(loss)
    return torch.tensor(total, dtype=torch.float64)


@pytest.mark.parametrize('temperature', [0.5, 0.8])
def test_a_loop_over_the_formula(temperature):
    guided, hint = maps(0), maps(1)
    foreground = foreground_mask(BOXES, SHAPE[2:], CANVAS)
    constants = (temperature, 0.3, 0.2, 0.1)
    torch.testing.assert_close(fgd_loss(guided, hint, foreground, *constants),
                               by_loops(guided, hint, foreground.double(), *constants))


def test_the_module_adds_the_global_part_and_takes_the_mean_over_images():
    guided, hint = maps(0, dtype=torch.float32), maps(1, dtype=torch.float32)
    module = FGDLoss(3, loss_weight=2.0)
    for context in (module.student_context, module.teacher_context):
        torch.nn.init.normal_(context.expand.weight, generator=torch.Generator().manual_seed(2))
    focal = fgd_loss(guided, hint, foreground_mask(BOXES, SHAPE[2:], CANVAS)).sum()
    difference = module.student_context(guided) - module.teacher_context(hint)
    expected = 2 * (focal + 5e-6 * difference.square().sum()) / 2
    torch.testing.assert_close(module(guided, hint, BOXES, CANVAS), expected)


def test_the_default_constants_are_retinanets():
    said = 'temperature=0.5, alpha=0.001, beta=0.0005, gamma=0.0005, lam=5e-06, loss_weight=1.0'
    assert FGDLoss(3).extra_repr() == said


def test_an_equal_feature_teaches_nothing():
    hint = maps(1, dtype=torch.float32)
    guided = hint.clone().requires_grad_()
    loss = FGDLoss(3)(guided, hint, BOXES, CANVAS)
    loss.backward()
    assert loss == 0 and not guided.grad.any()


def test_gradcheck_and_gradients_of_both_blocks():
    guided, hint = maps(0, (2, 4, 3, 3)).requires_grad_(), maps(1, (2, 4, 3, 3)).requires_grad_()
    module = FGDLoss(4, alpha=0.3, beta=0.2, gamma=0.1, lam=0.5).double()
    for context in (module.student_context, module.teacher_context):
        torch.nn.init.normal_(context.expand.weight, generator=torch.Generator().manual_seed(2))
        torch.nn.init.constant_(context.norm.bias, 2.0)  # no ReLU closed
    assert torch.autograd.gradcheck(lambda v: module(v, hint, BOXES, (24, 24)), guided)
    module(guided, hint, BOXES, (24, 24)).backward()
    assert hint.grad is None
    for context in (module.student_context, module.teacher_context):
        assert context.expand.weight.grad.any() and context.attention.weight.grad.any()


def test_four_images_are_the_mean_of_two_and_two():
    guided, hint = maps(0, (4, 3, 4, 5)), maps(1, (4, 3, 4, 5))
    module, boxes = FGDLoss(3).double(), BOXES + BOXES[::-1]
    halves = [module(guided[i:i + 2], hint[i:i + 2], boxes[i:i + 2], CANVAS) for i in (0, 2)]
    torch.testing.assert_close(module(guided, hint, boxes, CANVAS), sum(halves) / 2)


def test_the_focal_part_keeps_its_inputs_alone():
    guided, hint = maps(0, (2, 16, 20, 30)).half().requires_grad_(), maps(1, (2, 16, 20, 30)).half()
    foreground = foreground_mask(BOXES, (20, 30), CANVAS)
    found = saved_bytes(fgd_loss, guided, hint, foreground)
    assert found <= 2 * hint.numel() * hint.element_size() + foreground.numel() * foreground.element_size()


def test_refusals():
    module = FGDLoss(3)
    with pytest.raises(ValueError, match='boxes of 1 images found for features of 2'):
        module(maps(0), maps(1), BOXES[:1], CANVAS)
    with pytest.raises(ValueError, match=r'maps \(N, C, H, W\), found \(2, 3\)'):
        fgd_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r'foreground of shape \(2, 5, 4\) does not fit'):
        fgd_loss(maps(0), maps(1), torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r'built for \(N, 4, H, W\), found \(2, 3, 4, 5\)'):
        FGDLoss(4)(maps(0), maps(1), BOXES, CANVAS)
