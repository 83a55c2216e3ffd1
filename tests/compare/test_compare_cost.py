"""Parameters, multiply-adds and latency against numbers worked out by hand."""
import pytest
import torch
from torch import nn
from torchvision.ops import DeformConv2d

from kd_det.compare.cost import Latency, latencies, multiply_adds, parameters


class Step(nn.Module):
    """A module that takes a tensor, as a detector that takes a batch."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.test_step = module


def test_convolution_and_linear():
    step = Step(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1), nn.BatchNorm2d(8),
                              nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Flatten(),
                              nn.Linear(8 * 5 * 6, 7))).eval()
    conv1 = 5 * 6 * 8 * (3 * 9)
    conv2 = 5 * 6 * 8 * (2 * 9)
    linear = 8 * 5 * 6 * 7
    assert multiply_adds(step, [torch.randn(1, 3, 10, 12)]) == conv1 + conv2 + linear
    assert parameters(step) == (8 * 27 + 8) + (8 + 8) + (8 * 18 + 8) + (240 * 7 + 7)


def test_mean_over_images_of_different_size():
    step = Step(nn.Conv2d(1, 1, 1, bias=False))
    assert multiply_adds(step, [torch.randn(1, 1, 2, 2), torch.randn(1, 1, 4, 4)]) == (4 + 16) / 2


def test_deformable_convolution_costs_what_a_plain_one_does():
    conv = DeformConv2d(4, 6, 3, padding=1, groups=2)
    conv.test_step = lambda x: conv(x, torch.zeros(1, 18, 5, 7))
    assert multiply_adds(conv, [torch.randn(1, 4, 5, 7)]) == 5 * 7 * 6 * (2 * 9)


def test_attention_in_eval_mode_is_counted():
    n, c = 10, 8
    layer = nn.MultiheadAttention(c, 2, batch_first=True).eval()
    layer.test_step = lambda x: layer(x, x, x, need_weights=False)
    # four projections, and for both heads together n x n scores and their weighted sum
    assert multiply_adds(layer, [torch.randn(1, n, c)]) == 4 * n * c * c + 2 * n * n * c
    assert torch.backends.mha.get_fastpath_enabled()  # left as it was


class Clock:
    """Time that passes only while a detector works."""

    def __init__(self):
        self.now = 0.

    def __call__(self):
        return self.now


class Detector(nn.Module):
    def __init__(self, name, clock, calls):
        super().__init__()
        self.name, self.clock, self.calls = name, clock, calls

    def test_step(self, batch):
        assert not torch.is_grad_enabled()
        self.calls.append((self.name, batch))
        self.clock.now += batch / 1000


def test_detectors_take_turns_on_the_same_images():
    clock, calls, told = Clock(), [], []
    models = [Detector(name, clock, calls) for name in 'AB']
    a, b = latencies(models, [[1., 2., 3.], [10., 20., 30.]], repeat=4, warmup=1, clock=clock,
                     progress=lambda done, total: told.append((done, total)))
    assert calls == [('A', 3.), ('B', 30.)] + [  # the round that is not timed
        ('A', 1.), ('B', 10.), ('A', 2.), ('B', 20.), ('A', 3.), ('B', 30.), ('A', 1.), ('B', 10.)]
    assert a.times == pytest.approx([1, 2, 3, 1])
    assert b.times == pytest.approx([10, 20, 30, 10])
    assert told[-1] == (5, 5)
    with pytest.raises(ValueError, match='repeat=0'):
        latencies(models, [[1.], [1.]], repeat=0)


def test_summary_of_times():
    latency = Latency([float(t) for t in range(1, 12)])  # 1 ... 11 ms, mean 6
    assert (latency.median, latency.p90) == (6., 10.)
    assert latency.images_per_second == pytest.approx(1000 / 6)
