"""The modulated cross-entropy: a loop over its formula, its gradient by hand, its zeros."""
import math

import pytest
import torch
import torch.nn.functional as F
from loss_memory import saved_bytes

from kd_det.losses import ModulatedBCELoss, SoftBCELoss, focal_kl_loss, modulated_loss


def rows(*shape, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('kl', [False, True])
@pytest.mark.parametrize('exponent', [0.0, 1.0, 2.0])
@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_a_loop_over_the_formula(kl, exponent, temperature):
    student, teacher = rows(3, 4, 2), rows(3, 4, 2, seed=1)
    expected = []
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist()):
        p, q = (1 / (1 + math.exp(-z / temperature)) for z in (s, t))
        divergence = -q * math.log(p) - (1 - q) * math.log(1 - p)
        if kl:
            divergence += q * math.log(q) + (1 - q) * math.log(1 - q)
        expected.append(temperature**2 * divergence * abs(p - q) ** exponent)
    loss = modulated_loss(student, teacher, exponent, temperature, kl)
    torch.testing.assert_close(loss.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_gradient_by_hand_flows_through_the_modulator():
    # L = B d with d = |p - q|: dL/ds = d (p - q) + B sign(p - q) p (1 - p), not the detached d (p - q)
    student, teacher = rows(20), rows(20, seed=1)
    p, q = student.sigmoid(), teacher.sigmoid()
    cross_entropy = F.binary_cross_entropy(p, q, reduction='none')
    expected = (p - q).abs() * (p - q) + cross_entropy * (p - q).sign() * p * (1 - p)
    student.requires_grad_()
    modulated_loss(student, teacher, 1.0).sum().backward()
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize('beta', [1.0, 2.0])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_with_zero_gradient_where_both_agree(beta, dtype):
    teacher = rows(40, 5, scale=20.0).to(dtype)
    student = teacher.clone().requires_grad_()
    loss = ModulatedBCELoss(beta, reduction='sum')(student, teacher)
    loss.backward()
    assert not loss.any() and not student.grad.any()


def test_it_is_the_quality_focal_loss_of_mmdetection():
    # with hard quality targets their loss is the same formula: |y - p|^beta BCE(p, y)
    losses = pytest.importorskip('mmdet.models.losses')
    logits, quality = rows(6, 1), rows(6, 1, seed=1).sigmoid()
    expected = losses.QualityFocalLoss(beta=2.0, loss_weight=1.0)(
        logits, (torch.zeros(6, dtype=torch.long), quality[:, 0]), reduction_override='none')
    torch.testing.assert_close(ModulatedBCELoss(2.0)(logits, quality.logit(), reduction_override='none')[:, 0],
                               expected)


def test_soft_bce_is_torchs():
    student, teacher = rows(30), rows(30, seed=1)
    expected = F.binary_cross_entropy_with_logits(student, teacher.sigmoid())
    torch.testing.assert_close(SoftBCELoss()(student, teacher), expected)
    student.requires_grad_()
    SoftBCELoss(reduction='sum')(student, teacher).backward()
    torch.testing.assert_close(student.grad, student.detach().sigmoid() - teacher.sigmoid())


def test_focal_kl_is_the_same_primitive():
    student, teacher = rows(5, 4), rows(5, 4, seed=1)
    assert torch.equal(focal_kl_loss(student, teacher, 0.7, 2.0), modulated_loss(student, teacher, 0.7, 2.0, kl=True))


@pytest.mark.parametrize(('exponent', 'kl'), [(0.0, False), (1.0, False), (2.5, False), (0.5, True)])
def test_gradcheck(exponent, kl):
    teacher = rows(4, 3, seed=1)
    student = rows(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: modulated_loss(s, teacher, exponent, 2.0, kl), student)


def test_a_second_derivative_is_refused_in_words():
    student = rows(4, 3).requires_grad_()
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(modulated_loss(student, rows(4, 3, seed=1), 1.0).sum(), student, create_graph=True)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_backward_keeps_the_two_inputs_alone(dtype):
    student, teacher = rows(500, 80).to(dtype).requires_grad_(), rows(500, 80, seed=1).to(dtype)
    assert saved_bytes(ModulatedBCELoss(), student, teacher) <= 2.0 * student.numel() * student.element_size()


def test_many_rows_are_worked_on_in_parts_with_the_same_result(monkeypatch):
    student, teacher = rows(50, 7), rows(50, 7, seed=1)
    results = []
    for chunk in (10**6, 70, 1):
        monkeypatch.setattr('kd_det.losses.recompute.CHUNK', chunk)
        ours = student.clone().requires_grad_()
        loss = modulated_loss(ours, teacher, 1.0)
        (loss * torch.arange(7)).sum().backward()
        results.append((loss.detach(), ours.grad))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-14, atol=1e-15)


def test_weights_per_anchor_and_a_normaliser():
    student, teacher = rows(2, 6, 3), rows(2, 6, 3, seed=1)
    weight = rows(2, 6, seed=2).abs()
    expected = 0.4 * (modulated_loss(student, teacher, 1.0).sum(-1) * weight).sum() / 5
    torch.testing.assert_close(ModulatedBCELoss(loss_weight=0.4)(student, teacher, weight, 5.0), expected)


def test_roots_of_the_distance_are_refused_for_cross_entropy():
    with pytest.raises(ValueError, match=r'beta must be 0, or 1 or larger, found 0.5.*FocalKLLoss'):
        ModulatedBCELoss(beta=0.5)
    with pytest.raises(ValueError, match='exponent must be 0, or 1 or larger'):
        modulated_loss(rows(2), rows(2), 0.5)
