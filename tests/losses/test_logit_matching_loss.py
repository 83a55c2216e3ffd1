"""Logit matching: hand-computed values, and the limit of soft targets at high temperature."""
import pytest
import torch

from kd_det.losses import LogitMatchingLoss, logit_matching_loss, soft_target_loss


def rows(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_by_hand():
    student, teacher = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    # d = (2, 1, 0), centred (1, 0, -1): 2 / (2 * 3)
    assert logit_matching_loss(student, teacher).tolist() == pytest.approx([1 / 3])
    # (4 + 1) / 8
    assert logit_matching_loss(student, teacher, use_sigmoid=True).tolist() == [0.625]
    assert LogitMatchingLoss(loss_weight=3.0)(student, teacher).item() == pytest.approx(1.0)


def test_what_a_row_shares_does_not_matter_to_a_softmax():
    student, teacher = rows(4, 5), rows(4, 5, seed=1)
    torch.testing.assert_close(
        logit_matching_loss(student + 7.0, teacher), logit_matching_loss(student, teacher)
    )


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_is_the_limit_of_soft_targets(use_sigmoid):
    teacher = rows(4, 5, seed=1)
    student = rows(4, 5).requires_grad_()
    limit = logit_matching_loss(student, teacher, use_sigmoid)
    limit_gradient, = torch.autograd.grad(limit.sum(), student)

    def distance(temperature):
        loss = soft_target_loss(student, teacher, None, temperature, use_sigmoid, kl=True)
        gradient, = torch.autograd.grad(loss.sum(), student)
        gap = (gradient - limit_gradient).norm() / limit_gradient.norm()
        return (loss - limit).abs().max().item(), gap.item()

    (value_100, gradient_100), (value_1000, gradient_1000) = distance(100.0), distance(1000.0)
    assert gradient_1000 < 1e-2
    assert value_1000 < 1e-2
    # and it converges at least as 1 / T: direction and magnitude are the limit's, not just near
    assert gradient_1000 < gradient_100 / 9
    assert value_1000 < value_100 / 9


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_gradcheck_and_zero_where_equal(use_sigmoid):
    teacher = rows(3, 4, seed=1)
    assert torch.autograd.gradcheck(
        lambda student: logit_matching_loss(student, teacher, use_sigmoid),
        rows(3, 4).requires_grad_(),
    )
    assert not logit_matching_loss(teacher, teacher, use_sigmoid).any()


def test_a_single_centred_logit_is_refused():
    with pytest.raises(ValueError, match='use_sigmoid=True'):
        logit_matching_loss(torch.zeros(3, 1), torch.ones(3, 1))
    with pytest.raises(ValueError, match=r'\(3, 2\), teacher_logits \(3, 1\)'):
        logit_matching_loss(torch.zeros(3, 2), torch.ones(3, 1))
