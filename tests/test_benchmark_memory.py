"""The benchmarks' memory counter, on tensors whose sizes are known."""
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / 'tools' / 'benchmarks'))

from memory import LiveBytes, peak_bytes  # isort: skip


def test_bytes_come_and_go_and_views_count_once():
    with LiveBytes() as counter:
        first = torch.zeros(1000)                      # 4000 bytes
        second = first.view(10, 100)[2:] + 1           # 3200
        assert counter.live == 7200
        del second
        third = first[:500] * 2                        # 2000
        assert counter.live == 6000 and third is not None
        del first, third
    assert counter.live == 0 and counter.peak == 7200


def test_what_backward_needs_is_alive_until_then():
    weight = torch.ones(1000, requires_grad=True)

    def step() -> None:
        weight.grad = None
        loss = weight.exp().exp().sum()  # both results are kept for backward: 8000 bytes
        loss.backward()

    # beside the weight: two results, the sum and its gradient, one gradient on its way and the next
    assert 4000 + 8000 + 4000 <= peak_bytes(step, 'cpu', [weight]) <= 4000 + 8000 + 3 * 4000 + 64
    with torch.no_grad():
        # kept by nobody: the first result is gone when the sum is made
        assert peak_bytes(lambda: weight.exp().exp().sum(), 'cpu', [weight]) <= 4000 + 8000 + 64
