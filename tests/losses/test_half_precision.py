"""What overflows in half precision is computed in float32: large values, every loss, against float32."""
import copy

import pytest
import torch
from every_loss import LOSSES, arguments
from torch import nn

SCALES = {'scores': 3e4, 'distributions': 3e4, 'boxes': 3e3, 'features': 300.0}  # squares and sums leave float16


def drawn(scale, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def values(*shape):
        return (scale * (2 * torch.rand(*shape, generator=generator) - 1)).to(dtype)
    return values


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=['fp16', 'bf16'])
@pytest.mark.parametrize('name', LOSSES)
def test_half_precision_gives_what_float32_gives(name, dtype):
    half, whole = LOSSES[name](), LOSSES[name]()
    tensors, more = arguments(half, drawn(SCALES[half.compares], dtype))
    student = tensors[0].clone().requires_grad_()
    loss = half(student, *tensors[1:], **more)
    expected = whole(*(tensor.float() for tensor in tensors), **more)
    assert loss.dtype == torch.float32 and bool(loss.isfinite())
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    assert student.grad.dtype == dtype
    if dtype == torch.bfloat16:  # the gradient of a float16 tensor is a float16 tensor, whatever it was computed in
        assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize('name', LOSSES)
def test_autocast_leaves_a_loss_alone(name):
    """Features and logits of half precision, as autocast delivers them."""
    loss, same = LOSSES[name](), LOSSES[name]()
    tensors, more = arguments(loss, drawn(3.0, torch.bfloat16))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = loss(*tensors, **more)
    assert found.dtype == torch.float32 and torch.equal(found, same(*tensors, **more))


def test_the_values_do_overflow_in_half_precision():
    """What a loss without the cast gives: the test above would see it."""
    a, b = drawn(300.0, torch.float16)(2, 4, 6, 8), drawn(300.0, torch.float16, 1)(2, 4, 6, 8)
    assert not bool((a - b).square().sum().isfinite())
    assert not bool((drawn(3e3, torch.float16)(6, 4) * 30).isfinite().all())


def test_copies_behave_alike():
    for make in LOSSES.values():
        loss = make()
        assert isinstance(copy.deepcopy(loss), nn.Module) and loss.compares
