"""Localisation distillation: a loop over its formula, MMDetection's own, and what images per GPU do not change."""
import math

import pytest
import torch
from loss_memory import saved_bytes

from kd_det.losses import DistributionKLLoss, distribution_kl_loss


def logits(anchors, bins=17, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(anchors, 4, bins, generator=generator, dtype=torch.float64).to(dtype)


def probabilities(row, temperature):
    powers = [math.exp(z / temperature) for z in row]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize('temperature', [1.0, 10.0])
def test_a_loop_over_the_formula(temperature):
    student, teacher = logits(5, 8), logits(5, 8, seed=1)
    expected = []
    for ours, theirs in zip(student.tolist(), teacher.tolist()):
        edges = []
        for edge in range(4):
            p_s, p_t = probabilities(ours[edge], temperature), probabilities(theirs[edge], temperature)
            edges.append(sum(q * math.log(q / p) for p, q in zip(p_s, p_t)) / 8)
        expected.append(temperature**2 * sum(edges) / 4)
    loss = distribution_kl_loss(student, teacher, temperature)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64))


def test_equals_what_mmdetections_ld_head_asks_for():
    losses = pytest.importorskip('mmdet.models.losses')
    student, teacher, weight = logits(6), logits(6, seed=1), torch.rand(6, dtype=torch.float64)
    theirs = losses.KnowledgeDistillationKLDivLoss(loss_weight=0.25, T=10)(
        student.flatten(0, 1), teacher.flatten(0, 1), weight=weight[:, None].expand(-1, 4).reshape(-1), avg_factor=4.0)
    # they divide by the four edges; two images per GPU: N / 2 = 1
    torch.testing.assert_close(DistributionKLLoss()(student, teacher, weight, avg_factor=2 / 2), theirs)


def test_images_per_gpu_change_nothing_with_the_stated_normaliser():
    student, teacher, weight = logits(8), logits(8, seed=1), torch.rand(8, dtype=torch.float64)
    loss = DistributionKLLoss()
    parts = [loss(student[rows], teacher[rows], weight[rows], avg_factor=2 / 2) for rows in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(loss(student, teacher, weight, avg_factor=4 / 2), sum(parts) / 2)


def test_gradients():
    student, teacher = logits(3, 5).requires_grad_(), logits(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: distribution_kl_loss(s, teacher), student)
    distribution_kl_loss(student, teacher, 10.0).sum().backward()
    assert teacher.grad is None
    # dL/dz = T (p_s - p_t) / (4 B), by hand
    expected = 10 * ((student / 10).softmax(2) - (teacher / 10).softmax(2)) / 20
    torch.testing.assert_close(student.grad, expected.detach())


def test_agreement_is_zero_with_zero_gradient():
    teacher = logits(6, dtype=torch.float32)
    student = teacher.clone().requires_grad_()
    loss = distribution_kl_loss(student, teacher)
    loss.sum().backward()
    assert not loss.any() and student.grad.abs().max() < 1e-7


def test_backward_keeps_the_two_inputs_alone():
    student, teacher = logits(300, dtype=torch.float16).requires_grad_(), logits(300, seed=1, dtype=torch.float16)
    assert saved_bytes(DistributionKLLoss(), student, teacher) <= 2.0 * student.numel() * student.element_size()


@pytest.mark.parametrize('shape', [(3, 17), (3, 2, 17), (3, 4, 1), (12, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r'\(P, 4, B\).*found'):
        distribution_kl_loss(torch.zeros(shape), torch.zeros(shape))
