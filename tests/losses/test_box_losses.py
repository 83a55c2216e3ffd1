"""Teacher-bounded regression and plain box mimicry."""
import pytest
import torch
import torch.nn.functional as F

from kd_det.losses import BoxMimicryLoss, TeacherBoundedLoss, box_mimicry_loss
from kd_det.losses import teacher_bounded_loss as bounded

TARGET = torch.zeros(1, 4)


def boxes(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ('inner', 'expected'),
    [
        ('l2', 1 + 4 + 0.25),               # d = (1, -2, 0.5, 0)
        ('l1', 1 + 2 + 0.5),
        ('smooth_l1', 0.5 + 1.5 + 0.125),   # beta 1: |d| - 1/2 from 1 on, d^2 / 2 below
    ],
)
def test_by_hand(inner, expected):
    student, worse = torch.tensor([[1.0, -2.0, 0.5, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert bounded(student, worse, TARGET, inner=inner).tolist() == [expected]
    better = 10 * torch.ones(1, 4)
    assert bounded(student, better, TARGET, inner=inner).tolist() == [0.0]


def test_beta_of_smooth_l1():
    student, target = boxes(5, 4), boxes(5, 4, seed=1)
    expected = F.smooth_l1_loss(student, target, beta=0.3, reduction='none').sum(1)
    torch.testing.assert_close(bounded(student, target, target, 0.0, 'smooth_l1', 0.3), expected)


def test_each_box_has_its_own_gate():
    # On average the student is worse than the teacher (mean error 2.5 against 1.5), but not in
    # the first row: a gate on the batch mean would open both.
    student = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]])
    teacher = torch.tensor([[2**0.5, 0, 0, 0], [1.0, 0, 0, 0]])
    assert bounded(student, teacher, torch.zeros(2, 4)).tolist() == [0.0, 4.0]


def test_margin_and_the_strict_inequality():
    student, teacher = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0, 2.0, 0, 0]])
    # e_s = 1, e_t = 4: the student is better by 3
    assert bounded(student, teacher, TARGET, margin=2.5).tolist() == [0.0]
    assert bounded(student, teacher, TARGET, margin=3.0).tolist() == [0.0]
    assert bounded(student, teacher, TARGET, margin=3.5).tolist() == [1.0]
    # as good as the teacher: nothing without a margin
    assert bounded(student, student, TARGET).tolist() == [0.0]
    assert bounded(student, student, TARGET, margin=1e-3).tolist() == [1.0]


@pytest.mark.parametrize('margin', [0.0, 5.0])
def test_zero_for_a_student_that_equals_the_ground_truth(margin):
    target = boxes(6, 4).requires_grad_()
    student = target.detach().clone().requires_grad_()
    loss = bounded(student, boxes(6, 4, seed=1), target, margin)
    assert not loss.any()
    loss.sum().backward()
    assert not student.grad.any()


@pytest.mark.parametrize('inner', ['l2', 'l1', 'smooth_l1'])
def test_the_gradient_points_to_the_truth_and_ignores_where_the_teacher_is(inner):
    target = boxes(8, 4)
    gradients = []
    for seed in (1, 2):  # two teachers at other places, both closer than the student
        student = (target + 3.0).requires_grad_()
        teacher = (target + 0.1 * boxes(8, 4, seed=seed)).requires_grad_()
        truth = target.clone().requires_grad_()
        bounded(student, teacher, truth, inner=inner).sum().backward()
        assert teacher.grad is None
        assert truth.grad is None
        gradients.append(student.grad)
    assert torch.equal(*gradients)
    # d/dR of (R - y)^2, |R - y| and of smooth L1 beyond beta
    expected = 6.0 if inner == 'l2' else 1.0
    torch.testing.assert_close(gradients[0], torch.full_like(target, expected))


@pytest.mark.parametrize('inner', ['l2', 'l1', 'smooth_l1'])
def test_gradcheck(inner):
    teacher, target, weight = boxes(6, 4, seed=1), boxes(6, 4, seed=2), boxes(6, 4, seed=3).abs()
    student = boxes(6, 4).requires_grad_()
    is_open = bounded(student, teacher, target, 0.1, inner) > 0
    assert is_open.any() and not is_open.all()
    assert torch.autograd.gradcheck(
        lambda s: bounded(s, teacher, target, 0.1, inner, 1.0, weight), student
    )
    assert torch.autograd.gradcheck(lambda s: box_mimicry_loss(s, teacher, weight), student)


def test_weights_scale_the_loss_and_not_the_gate():
    student, teacher = torch.tensor([[2.0, 1, 0, 0]]), torch.tensor([[1.0, 0, 1, 0]])
    # e_s = 5 > e_t = 2; weighted e_s = 0.1 * 4 + 1 = 1.4, weighted e_t would be 0.1 + 1
    weight = torch.tensor([[0.1, 1, 1, 1]])
    assert bounded(student, teacher, TARGET, weight=weight).tolist() == pytest.approx([1.4])
    # a margin of 1 opens e_s + 1 > 5.5 for the box, whatever its weight
    other = torch.tensor([[2.0, 1, 0.5**0.5, 0]])  # e = 5.5
    for value in (1e-3, 1.0, 1e3):
        weight = torch.tensor([value])
        assert bounded(student, other, TARGET, 1.0, weight=weight).tolist() == pytest.approx(
            [5 * value]
        )
        assert bounded(student, other, TARGET, 0.25, weight=weight).tolist() == [0.0]


def test_coordinates_of_weight_zero_take_no_part_in_the_gate():
    student, teacher = torch.tensor([[1.0, 9, 0, 0]]), torch.tensor([[2.0, 0, 0, 0]])
    # over all coordinates the student is worse (82 > 4); over the trained ones better (1 < 4)
    assert bounded(student, teacher, TARGET).tolist() == [82.0]
    weight = torch.tensor([[1.0, 0, 1, 1]])
    assert bounded(student, teacher, TARGET, weight=weight).tolist() == [0.0]


@pytest.mark.parametrize('broken', ['student', 'teacher', 'target'])
def test_not_a_number_is_not_taken_for_a_good_student(broken):
    inputs = {name: torch.zeros(2, 4) for name in ('student', 'teacher', 'target')}
    inputs['student'] += 1
    inputs[broken][1, 2] = float('nan')
    loss = bounded(**inputs)
    assert loss[0] == 4.0
    assert loss[1].isnan()


def test_mimicry_by_hand():
    student, teacher = torch.tensor([[1.0, 2, 0, 0]]), torch.tensor([[0, 0, 0, 3.0]])
    assert box_mimicry_loss(student, teacher).tolist() == [14.0]  # 1 + 4 + 9
    assert box_mimicry_loss(student, teacher, torch.tensor([[1, 0.5, 0, 0]])).tolist() == [3.0]
    student.requires_grad_()
    box_mimicry_loss(student, teacher).sum().backward()
    assert student.grad.tolist() == [[2.0, 4.0, 0.0, -6.0]]  # away from the teacher's box


def test_both_modules_take_the_same_call():
    student, teacher, target = boxes(5, 4), boxes(5, 4, seed=1), boxes(5, 4, seed=2)
    weight = boxes(5, 4, seed=3).abs()
    for module, rows in (
        (TeacherBoundedLoss(margin=0.5), bounded(student, teacher, target, 0.5, weight=weight)),
        (BoxMimicryLoss(), box_mimicry_loss(student, teacher, weight)),
    ):
        assert rows.any()
        loss = module(student, teacher, target, weight, avg_factor=20.0)
        torch.testing.assert_close(loss, 0.5 * rows.sum() / 20)
        torch.testing.assert_close(module(student, teacher, target, weight), 0.5 * rows.mean())
        none = module(student, teacher, target, weight, reduction_override='none')
        torch.testing.assert_close(none, 0.5 * rows)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'inner': 'giou'}, "inner must be one of 'l2', 'l1', 'smooth_l1', found 'giou'"),
        ({'margin': -0.1}, 'margin .* found -0.1'),
        ({'beta': 0.0}, 'beta .* found 0'),
    ],
)
def test_constructor_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        TeacherBoundedLoss(**arguments)


def test_input_is_refused_with_its_shapes():
    four, eighty = torch.zeros(2, 4), torch.zeros(2, 80)
    with pytest.raises(ValueError, match=r'student \(2, 80\), teacher \(2, 4\), target \(2, 4\)'):
        bounded(eighty, four, four)
    with pytest.raises(ValueError, match=r'found \(2, 80\).*target class'):
        bounded(eighty, eighty, eighty)
    with pytest.raises(ValueError, match=r'found \(2, 80\).*target class'):
        box_mimicry_loss(eighty, eighty)
    with pytest.raises(ValueError, match=r'weight of shape \(4,\)'):
        bounded(four, four, four, weight=torch.ones(4))
