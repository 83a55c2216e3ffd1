"""The focal KL: hand-computed values, and a gradient that is finite where both agree."""
import math

import pytest
import torch
import torch.nn.functional as F
from loss_memory import saved_bytes

from kd_det.losses import FocalKLLoss, focal_kl_loss, soft_target_loss


def rows(*shape, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_sigmoid_by_hand():
    student = torch.tensor([[-math.log(3), 0.0]], dtype=torch.float64)  # p_s = 1/4, 1/2
    teacher = torch.zeros_like(student)                                 # p_t = 1/2
    # KL = 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3, times |1/2 - 1/4|^(1/2) = 1/2
    loss = focal_kl_loss(student, teacher)
    assert loss.tolist() == [pytest.approx([math.log(4 / 3) / 4, 0.0])]
    # gamma 1: times 1/4
    loss = focal_kl_loss(student, teacher, gamma=1.0)
    assert loss.tolist() == [pytest.approx([math.log(4 / 3) / 8, 0.0])]
    # the module: times 10, mean over both elements
    assert FocalKLLoss()(student, teacher).item() == pytest.approx(10 * math.log(4 / 3) / 8)


def test_softmax_by_hand():
    teacher = torch.tensor([[1 / 2, 1 / 4, 1 / 4]], dtype=torch.float64).log()
    student = torch.tensor([[1 / 4, 1 / 4, 1 / 2]], dtype=torch.float64).log()
    # KL = 1/2 ln 2 + 0 - 1/4 ln 2 = 1/4 ln 2; total variation (1/4 + 0 + 1/4) / 2 = 1/4
    loss = focal_kl_loss(student, teacher, use_sigmoid=False)
    assert loss.tolist() == pytest.approx([math.log(2) / 4 / 2])


def test_two_class_softmax_is_the_sigmoid():
    student, teacher = rows(20), rows(20, seed=1)
    zeros = torch.zeros(20, dtype=torch.float64)
    torch.testing.assert_close(
        focal_kl_loss(
            torch.stack([student, zeros], 1), torch.stack([teacher, zeros], 1), 0.7, 2.0, False
        ),
        focal_kl_loss(student, teacher, 0.7, 2.0, True),
    )


@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_gamma_zero_is_plain_kl(use_sigmoid):
    student, teacher = rows(5, 4), rows(5, 4, seed=1)
    loss = focal_kl_loss(student, teacher, 0.0, 3.0, use_sigmoid)
    expected = soft_target_loss(student, teacher, None, 3.0, use_sigmoid, kl=True)
    torch.testing.assert_close(loss.sum(1) if use_sigmoid else loss, expected)


def test_modulator_is_that_of_the_quality_focal_loss():
    # cross-entropy instead of KL gives the quality focal loss, so the ratio is the modulator
    student, teacher = rows(5, 4), rows(5, 4, seed=1)
    p_s, p_t = student.sigmoid(), teacher.sigmoid()
    kl = F.binary_cross_entropy(p_s, p_t, reduction='none')
    kl = kl - F.binary_cross_entropy(p_t, p_t, reduction='none')
    torch.testing.assert_close(focal_kl_loss(student, teacher), kl * (p_t - p_s).abs().sqrt())


@pytest.mark.parametrize('use_sigmoid', [True, False])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_gradcheck_away_from_agreement(use_sigmoid, gamma):
    teacher = rows(4, 3, seed=1)
    student = rows(4, 3).requires_grad_()
    assert ((student - teacher).abs() > 1e-2).all()
    assert torch.autograd.gradcheck(
        lambda s: focal_kl_loss(s, teacher, gamma, 2.0, use_sigmoid), student
    )


@pytest.mark.parametrize('use_sigmoid', [True, False])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_zero_with_zero_gradient_where_both_agree(use_sigmoid, gamma, dtype):
    teacher = rows(30, 5, scale=10.0).to(dtype)
    student = teacher.clone().requires_grad_()
    loss = focal_kl_loss(student, teacher, gamma, 1.0, use_sigmoid)
    assert not loss.any()
    loss.sum().backward()
    if gamma == 0.0:  # plain KL: p_s - p_t, by two roundings
        assert student.grad.abs().max() < 1e-6
    else:
        assert not student.grad.any()


@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_gradient_vanishes_towards_agreement(use_sigmoid):
    # L ~ |d|^(2 + gamma), so the gradient falls as |d|^(1 + gamma) and rounding must not revive it
    teacher = rows(40, 5, scale=5.0).float()
    for step in (1e-3, 1e-5, 1e-7):
        student = (teacher + step * rows(40, 5, seed=2).float()).requires_grad_()
        focal_kl_loss(student, teacher, use_sigmoid=use_sigmoid).sum().backward()
        assert student.grad.isfinite().all()
        assert student.grad.abs().max() < max(10 * step**1.5, 1e-3)


def test_row_and_element_weights():
    student, teacher = rows(3, 3), rows(3, 3, seed=1)
    elements = focal_kl_loss(student, teacher)
    module = FocalKLLoss(loss_weight=2.0, reduction='sum')
    by_row = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(
        module(student, teacher, by_row), 2 * (elements.sum(1) * by_row).sum()
    )
    by_element = rows(3, 3, seed=2).abs()
    torch.testing.assert_close(
        module(student, teacher, by_element), 2 * (elements * by_element).sum()
    )


def test_refusals():
    with pytest.raises(ValueError, match=r'gamma .* found -0.5'):
        FocalKLLoss(gamma=-0.5)
    with pytest.raises(ValueError, match=r'temperature .* found 0'):
        FocalKLLoss(temperature=0)
    with pytest.raises(ValueError, match='use_sigmoid=True'):
        focal_kl_loss(torch.zeros(3, 1), torch.zeros(3, 1), use_sigmoid=False)
    with pytest.raises(ValueError, match=r'\(3, 2\), teacher_logits \(2,\)'):
        focal_kl_loss(torch.zeros(3, 2), torch.zeros(2))


@pytest.mark.parametrize('use_sigmoid', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_backward_keeps_the_two_inputs_alone(use_sigmoid, dtype):
    student, teacher = rows(500, 80).to(dtype).requires_grad_(), rows(500, 80, seed=1).to(dtype)
    module = FocalKLLoss(use_sigmoid=use_sigmoid)
    found = saved_bytes(module, student, teacher, None, torch.tensor(7.0))
    assert found / (student.numel() * student.element_size()) <= 2.001  # the divisor's four bytes beside
