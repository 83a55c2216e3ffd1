"""Sigmoid and softmax focal loss of MMCV against autograd of the formula and gradcheck."""
import math

import pytest
import torch
import torchvision

from kd_det.compat import ext

pytest.importorskip('mmcv')
ext.install()
from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss  # noqa: E402

CLASSES = 4
TARGET = torch.tensor([0, 3, CLASSES, 1, 2, CLASSES])  # CLASSES is the background


def logits(dtype=torch.float64, scale=2.0):
    return torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(0), dtype=dtype) * scale


def one_hot(dtype):
    return torch.nn.functional.one_hot(TARGET, CLASSES + 1)[:, :CLASSES].to(dtype)


@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_sigmoid_equals_torchvision_with_autograd(gamma, alpha, reduction):
    x = logits().requires_grad_()
    got = sigmoid_focal_loss(x, TARGET, gamma, alpha, None, reduction)
    want = torchvision.ops.sigmoid_focal_loss(x, one_hot(x.dtype), alpha, gamma, 'none')
    # MMCV's mean is over rows, not elements
    want = {'none': want, 'sum': want.sum(), 'mean': want.sum() / len(x)}[reduction]
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), x),
                               torch.autograd.grad(want.sum(), x))


def test_sigmoid_by_hand():
    # logit 0: p = 1/2, so every element is alpha_t * (1/2)^2 * log 2
    loss = sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([1]), 2.0, 0.25, None, 'none')
    torch.testing.assert_close(loss, torch.tensor([[0.75, 0.25]]) * 0.25 * math.log(2))


def test_sigmoid_gradcheck_with_class_weights():
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, TARGET, 2.0, 0.25, weight, 'none'),
        logits().requires_grad_())
    got = sigmoid_focal_loss(logits(), TARGET, 2.0, 0.25, weight, 'none')
    plain = sigmoid_focal_loss(logits(), TARGET, 2.0, 0.25, None, 'none')
    rows = torch.tensor([0.5, 3.0, 1.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(got, plain * rows[:, None])


def test_sigmoid_stays_finite_at_extreme_logits():
    x = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.tensor([0, 0]), 2.0, 0.25, None, 'none')
    loss.sum().backward()
    # -alpha * log p is alpha * 200 for the missed class and (1 - alpha) * 200 for the false one
    torch.testing.assert_close(loss, torch.tensor([[0.0, 0.0], [50.0, 150.0]]))
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 0.0], [-0.25, 0.75]]))


@pytest.mark.parametrize('op', [sigmoid_focal_loss, softmax_focal_loss])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_close_and_keeps_its_type(op, dtype):
    target = TARGET.clamp(max=CLASSES - 1)
    x = logits(dtype).requires_grad_()
    loss = op(x, target, 2.0, 0.25, None, 'sum')
    loss.backward()
    exact = x.detach().double().requires_grad_()
    want = op(exact, target, 2.0, 0.25, None, 'sum')
    want.backward()
    assert loss.dtype == dtype == x.grad.dtype
    tolerance = {'rtol': 2 ** -6 if dtype == torch.bfloat16 else 2 ** -9, 'atol': 5e-3}
    torch.testing.assert_close(loss.double(), want, **tolerance)
    torch.testing.assert_close(x.grad.double(), exact.grad, **tolerance)


def plain_softmax_focal(x, target, gamma, alpha, weight):
    log_p = x.log_softmax(1)
    log_p = log_p[torch.arange(len(x)), target.clamp(min=0)]
    loss = -alpha * (1 - log_p.exp()) ** gamma * log_p * weight[target.clamp(min=0)]
    return loss * (target >= 0)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_equals_autograd_of_the_formula(gamma, weighted):
    target = torch.tensor([0, 3, 1, -1, 2, 2])  # a negative label is ignored
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    x = logits().requires_grad_()
    got = softmax_focal_loss(x, target, gamma, 0.25, weight if weighted else None, 'sum')
    want = plain_softmax_focal(x, target, gamma, 0.25,
                               weight if weighted else torch.ones_like(weight)).sum()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x))


def test_softmax_gradcheck_and_certain_predictions():
    target = torch.tensor([0, 3, 1, 0, 2, 2])
    assert torch.autograd.gradcheck(
        lambda x: softmax_focal_loss(x, target, 2.0, 0.25, None, 'mean'),
        logits().requires_grad_())
    x = torch.tensor([[100.0, -100.0]], requires_grad=True)  # p = 1 exactly
    for gamma in (0.0, 0.5, 2.0):
        loss = softmax_focal_loss(x, torch.tensor([0]), gamma, 0.25, None, 'sum')
        grad, = torch.autograd.grad(loss, x)
        assert loss == 0 and not grad.any()


@pytest.mark.parametrize('op', [sigmoid_focal_loss, softmax_focal_loss])
def test_no_rows(op):
    x = torch.zeros(0, CLASSES, requires_grad=True)
    if op is softmax_focal_loss:
        loss = op(x, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    else:
        loss = op(x, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'none').sum()
    loss.backward()
    assert loss == 0 and x.grad.shape == (0, CLASSES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('op', [sigmoid_focal_loss, softmax_focal_loss])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_cuda_equals_cpu(op, dtype):
    target = TARGET.clamp(max=CLASSES - 1)
    here, there = (logits(dtype).to(d).requires_grad_() for d in ('cpu', 'cuda'))
    for x in (here, there):
        op(x, target.to(x.device), 2.0, 0.25, None, 'sum').backward()
    torch.testing.assert_close(there.grad.cpu(), here.grad)
