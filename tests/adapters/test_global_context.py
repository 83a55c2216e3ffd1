"""The global-context block by loops, and as it starts."""
import math

import pytest
import torch

from kd_det.adapters import GlobalContext


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_loop_over_the_formula():
    feature, block = maps(2, 4, 3, 2), GlobalContext(4)
    for seed, parameter in enumerate(block.parameters()):
        parameter.data = maps(*parameter.shape, seed=seed + 1)
    block.requires_grad_(False)
    output = block(feature)
    places = [(y, x) for y in range(3) for x in range(2)]
    for n in range(2):
        scores = [math.exp(sum(float(block.attention.weight[0, c] * feature[n, c, y, x]) for c in range(4))
                           + float(block.attention.bias)) for y, x in places]
        context = [sum(s / sum(scores) * float(feature[n, c, y, x]) for s, (y, x) in zip(scores, places))
                   for c in range(4)]
        hidden = [sum(float(block.reduce.weight[h, c]) * context[c] for c in range(4)) + float(block.reduce.bias[h])
                  for h in range(2)]
        mean = sum(hidden) / 2
        deviation = math.sqrt(sum((h - mean) ** 2 for h in hidden) / 2 + 1e-5)
        hidden = [max((h - mean) / deviation * float(block.norm.weight[i]) + float(block.norm.bias[i]), 0.0)
                  for i, h in enumerate(hidden)]
        for c in range(4):
            change = sum(float(block.expand.weight[c, h]) * hidden[h] for h in range(2)) + float(block.expand.bias[c])
            for y, x in places:
                assert output[n, c, y, x].item() == pytest.approx(float(feature[n, c, y, x]) + change, abs=1e-4)


def test_it_starts_as_the_identity_and_trains():
    feature, block = maps(2, 8, 3, 3), GlobalContext(8)
    assert torch.equal(block(feature), feature)
    block(feature).square().sum().backward()
    assert block.expand.weight.grad.any()


def test_narrow_features_and_refusals():
    assert GlobalContext(1)(maps(1, 1, 2, 2)).isfinite().all()
    with pytest.raises(ValueError, match=r'built for \(N, 3, H, W\), found \(2, 4, 3, 3\)'):
        GlobalContext(3)(maps(2, 4, 3, 3))
