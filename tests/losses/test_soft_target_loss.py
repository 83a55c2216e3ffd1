"""Soft targets: hand-computed values, the plain losses they generalise, and their gradients."""
import math

import pytest
import torch
import torch.nn.functional as F

from kd_det.losses import SoftTargetLoss, soft_target_loss

LN2, LN3 = math.log(2), math.log(3)


def rows(*shape, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def logits_of(*probabilities):
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_softmax_by_hand_with_the_background_last():
    student, teacher = logits_of(1 / 4, 1 / 4, 1 / 2), logits_of(1 / 2, 1 / 4, 1 / 4)
    # -(1/2 ln 1/4 + 1/4 ln 1/4 + 1.5 * 1/4 ln 1/2) = (1 + 0.5 + 0.375) ln 2
    loss = soft_target_loss(student, teacher, background_weight=1.5)
    assert loss.tolist() == pytest.approx([1.875 * LN2], rel=1e-12)
    # the teacher's own: (1/2 * 1 + 1/4 * 2 + 1.5 * 1/4 * 2) ln 2 = 1.75 ln 2
    divergence = soft_target_loss(student, teacher, background_weight=1.5, kl=True)
    assert divergence.tolist() == pytest.approx([0.125 * LN2], rel=1e-12)
    # object weights 2 and 4: (2 * 1 + 4 * 0.5 + 0.375) ln 2
    loss = soft_target_loss(student, teacher, torch.tensor([2.0, 4.0]), background_weight=1.5)
    assert loss.tolist() == pytest.approx([4.375 * LN2], rel=1e-12)


def test_sigmoid_by_hand_with_the_background_in_every_column():
    # p_s = 1/4, 1/2 and p_t = 1/2, 3/4
    student = torch.tensor([[-LN3, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, LN3]], dtype=torch.float64)
    # column 1: -(1/2 ln 1/4 + 1.5 * 1/2 ln 3/4) = ln 2 + 0.75 (2 ln 2 - ln 3)
    # column 2: -(3/4 ln 1/2 + 1.5 * 1/4 ln 1/2) = 1.125 ln 2
    expected = LN2 + 0.75 * (2 * LN2 - LN3) + 1.125 * LN2
    loss = soft_target_loss(student, teacher, use_sigmoid=True, background_weight=1.5)
    assert loss.tolist() == pytest.approx([expected], rel=1e-12)


def test_temperature_by_hand():
    # T = 2 softens the teacher's (0, 2 ln 3) to p_t = (1/4, 3/4); p_s = (1/2, 1/2); 2^2 * ln 2
    teacher = torch.tensor([[0.0, 2 * LN3]], dtype=torch.float64)
    loss = soft_target_loss(torch.zeros_like(teacher), teacher, temperature=2.0)
    assert loss.tolist() == pytest.approx([4 * LN2], rel=1e-12)


def test_one_hot_teacher_is_plain_cross_entropy():
    student, labels = rows(6, 5), torch.tensor([0, 4, 2, 2, 3, 1])
    teacher = 1e4 * F.one_hot(labels, 5).double()
    expected = F.cross_entropy(student, labels, reduction='none')
    torch.testing.assert_close(soft_target_loss(student, teacher), expected)


def test_sigmoid_is_binary_cross_entropy():
    student, teacher = rows(6, 4), rows(6, 4, seed=1)
    expected = F.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction='none')
    loss = soft_target_loss(student, teacher, use_sigmoid=True)
    torch.testing.assert_close(loss, expected.sum(1))


def test_kl_is_torchs():
    student, teacher = rows(6, 4), rows(6, 4, seed=1)
    loss = soft_target_loss(student, teacher, temperature=3.0, kl=True)
    log_probs = F.log_softmax(student / 3, 1), F.log_softmax(teacher / 3, 1)
    expected = 9 * F.kl_div(*log_probs, log_target=True, reduction='none').sum(1)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_kl_has_the_gradient_of_cross_entropy(use_sigmoid):
    teacher = rows(5, 4, seed=1)
    gradients = []
    for kl in (False, True):
        student = rows(5, 4).requires_grad_()
        loss = soft_target_loss(
            student, teacher, None, 2.0, use_sigmoid, background_weight=1.5, kl=kl
        )
        gradients += torch.autograd.grad(loss.sum(), student)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.1


@pytest.mark.parametrize('use_sigmoid', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_kl_is_exactly_zero_where_both_agree(use_sigmoid, dtype):
    logits = rows(50, 7, scale=10.0).to(dtype)
    loss = soft_target_loss(logits, logits, None, 3.0, use_sigmoid, 1.5, kl=True)
    assert torch.equal(loss, torch.zeros(50))


@pytest.mark.parametrize('use_sigmoid', [False, True])
@pytest.mark.parametrize('kl', [False, True])
def test_gradcheck(use_sigmoid, kl):
    teacher = rows(3, 4, seed=1)
    weight = torch.tensor([0.5, 2.0, 3.0, 1.0] if use_sigmoid else [0.5, 2.0, 3.0])

    def loss(student):
        return soft_target_loss(student, teacher, weight, 2.0, use_sigmoid, 1.5, kl)

    assert torch.autograd.gradcheck(loss, rows(3, 4).requires_grad_())


def test_gradient_without_weights_is_hintons():
    # dL/dz = T^2 * (p_s - p_t) / T
    student, teacher = rows(4, 5).requires_grad_(), rows(4, 5, seed=1)
    soft_target_loss(student, teacher, temperature=4.0).sum().backward()
    expected = 4 * (F.softmax(student.detach() / 4, 1) - F.softmax(teacher / 4, 1))
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_weights_only_scale_their_own_terms(use_sigmoid):
    # the loss is linear in the weights: the sum over one-hot weights gives it back
    student, teacher = rows(4, 3), rows(4, 3, seed=1)
    weight = torch.tensor([0.5, 2.0, 3.0] if use_sigmoid else [0.5, 2.0], dtype=torch.float64)
    total = soft_target_loss(
        student, teacher, torch.zeros_like(weight), 1.0, use_sigmoid, background_weight=1.5
    )
    for index, value in enumerate(weight):
        alone = torch.zeros_like(weight)
        alone[index] = value
        total = total + soft_target_loss(
            student, teacher, alone, 1.0, use_sigmoid, background_weight=0.0
        )
    expected = soft_target_loss(student, teacher, weight, 1.0, use_sigmoid, 1.5)
    torch.testing.assert_close(total, expected)


def test_unequal_weights_move_the_optimum_as_documented():
    teacher = rows(1, 4)
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    all_weights = torch.tensor([0.5, 2.0, 3.0, 1.5], dtype=torch.float64)
    optimum = F.log_softmax(teacher + all_weights.log(), 1).requires_grad_()  # p_s ~ w p_t
    soft_target_loss(optimum, teacher, weight, background_weight=1.5).sum().backward()
    torch.testing.assert_close(optimum.grad, torch.zeros_like(teacher))


def test_module_equals_the_function_on_the_papers_defaults():
    student, teacher = rows(6, 4), rows(6, 4, seed=1)
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 0.0])
    expected = soft_target_loss(student, teacher, background_weight=1.5) * weight
    module = SoftTargetLoss(loss_weight=0.5)
    torch.testing.assert_close(module(student, teacher, weight), 0.5 * expected.sum() / 6)
    torch.testing.assert_close(
        module(student, teacher, weight, avg_factor=4), 0.5 * expected.sum() / 4
    )
    torch.testing.assert_close(
        module(student, teacher, weight, reduction_override='none'), 0.5 * expected
    )


def test_class_weight_is_no_checkpoint_key():
    module = SoftTargetLoss(class_weight=[2, 4])
    assert not module.state_dict()
    loss = module(logits_of(1 / 4, 1 / 4, 1 / 2), logits_of(1 / 2, 1 / 4, 1 / 4))
    assert loss.item() == pytest.approx(4.375 * LN2, rel=1e-6)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'temperature': 0}, 'temperature .* found 0'),
        ({'temperature': float('nan')}, 'temperature .* found nan'),
        ({'background_weight': -1.5}, 'background_weight .* found -1.5'),
        ({'class_weight': [1, -2]}, r'class_weight\[1\] .* found -2'),
        ({'loss_weight': -1}, 'loss_weight .* found -1'),
        ({'reduction': 'avg'}, "reduction must be one of .*'mean'.* found 'avg'"),
    ],
)
def test_constructor_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        SoftTargetLoss(**arguments)


@pytest.mark.parametrize('arguments', [{'kl': 'no'}, {'temperature': '1'}, {'class_weight': 1}])
def test_constructor_refuses_other_types(arguments):
    with pytest.raises(TypeError, match=next(iter(arguments))):
        SoftTargetLoss(**arguments)


def test_input_is_refused_with_its_shapes():
    with pytest.raises(ValueError, match=r'student_logits \(2, 3\), teacher_logits \(2, 1\)'):
        soft_target_loss(torch.zeros(2, 3), torch.zeros(2, 1))
    with pytest.raises(ValueError, match='use_sigmoid=True'):
        soft_target_loss(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r'\(N, C\), found \(2, 3, 4, 4\)'):
        soft_target_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    # MMDetection's class_weight has an entry for the background, ours has not
    with pytest.raises(ValueError, match=r'2 object classes .* found shape \(3,\)'):
        SoftTargetLoss(class_weight=[1, 1, 1])(torch.zeros(2, 3), torch.zeros(2, 3))
