"""What all losses have in common: reduction, precision, empty input, a teacher left alone."""
import ast
import inspect
from pathlib import Path

import pytest
import torch

import kd_det.losses
from kd_det.losses import (
    BoxMimicryLoss,
    FocalKLLoss,
    HintLoss,
    LogitMatchingLoss,
    ModulatedBCELoss,
    SoftBCELoss,
    SoftTargetLoss,
    TeacherBoundedLoss,
    reduce_loss,
)

LOSSES = {
    'soft target': (SoftTargetLoss(), 5),
    'soft target, sigmoid': (SoftTargetLoss(use_sigmoid=True), 5),
    'soft target, kl': (SoftTargetLoss(kl=True, temperature=2.0), 5),
    'soft target, sigmoid, kl': (SoftTargetLoss(True, kl=True, class_weight=[1, 2, 3, 4, 5]), 5),
    'logit matching': (LogitMatchingLoss(), 5),
    'logit matching, sigmoid': (LogitMatchingLoss(use_sigmoid=True), 5),
    'bounded, l2': (TeacherBoundedLoss('l2'), 4),
    'bounded, l1': (TeacherBoundedLoss('l1'), 4),
    'bounded, smooth l1': (TeacherBoundedLoss('smooth_l1'), 4),
    'mimicry': (BoxMimicryLoss(), 4),
    'hint, l2': (HintLoss(), 6),
    'hint, l1': (HintLoss('l1'), 6),
    'focal kl': (FocalKLLoss(), 5),
    'focal kl, softmax': (FocalKLLoss(use_sigmoid=False), 5),
    'modulated bce': (ModulatedBCELoss(), 5),
    'soft bce': (SoftBCELoss(), 5),
}
BOXES = (TeacherBoundedLoss, BoxMimicryLoss)

all_losses = pytest.mark.parametrize('name', LOSSES)


def rows(num, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(num, columns, generator=generator)


def inputs(name, num=8, dtype=torch.float32):
    """Student, teacher and, for boxes, a target nearer to the teacher than to the student."""
    module, columns = LOSSES[name]
    student, teacher = rows(num, columns, 0).to(dtype), rows(num, columns, 1).to(dtype)
    extra = [(teacher + 0.1).detach()] if isinstance(module, BOXES) else []
    return module, student, teacher, extra


@all_losses
def test_the_teacher_gets_no_gradient(name):
    module, student, teacher, extra = inputs(name)
    student.requires_grad_()
    teacher.requires_grad_()
    loss = module(student, teacher, *extra)
    loss.backward()
    assert teacher.grad is None
    assert student.grad.any()


@all_losses
def test_empty_input_is_a_zero_on_the_graph(name):
    module, student, teacher, extra = inputs(name, num=0)
    student.requires_grad_()
    for kwargs in ({}, {'avg_factor': 0.0}, {'avg_factor': torch.tensor(0.0)},
                   {'reduction_override': 'sum'}, {'weight': torch.ones(0)}):
        loss = module(student, teacher, *extra, **kwargs)
        assert loss.shape == ()
        assert loss.item() == 0.0
        loss.backward()
    assert student.grad.shape == student.shape


@all_losses
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_at_extreme_values(name, dtype):
    module, student, teacher, extra = inputs(name, dtype=dtype)
    largest = 60000.0  # float16 ends at 65504; squares and sums of these are far outside
    if isinstance(module, BOXES + (HintLoss, LogitMatchingLoss)):
        student, teacher = 200 * student, 200 * teacher
    student[0], teacher[0] = largest, -largest
    student[1, 0], teacher[1, 0] = -largest, largest
    student[2], teacher[2] = largest, largest
    student.requires_grad_()
    loss = module(student, teacher, *extra)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    loss.backward()
    assert student.grad.dtype == dtype
    if dtype == torch.bfloat16:  # float16 gradients of 60000^2 overflow, as they should
        assert student.grad.isfinite().all()


@all_losses
def test_autocast_changes_nothing(name):
    module, student, teacher, extra = inputs(name)
    expected = module(student, teacher, *extra)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = module(student, teacher, *extra)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@all_losses
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_gpu_under_autocast_agrees_with_the_cpu(name, dtype):
    module, student, teacher, extra = inputs(name)
    expected = module(student, teacher, *extra)
    with torch.autocast('cuda', dtype=dtype):
        loss = module.cuda()(student.cuda(), teacher.cuda(), *[y.cuda() for y in extra])
    module.cpu()
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-5, atol=1e-6)


@all_losses
def test_reductions_agree_with_each_other(name):
    module, student, teacher, extra = inputs(name)
    weight = torch.arange(8.0)
    elements = module(student, teacher, *extra, weight, reduction_override='none')
    assert elements.shape[0] == 8
    for reduction, avg_factor, expected in (
        ('sum', None, elements.sum()),
        ('mean', None, elements.mean()),
        (None, None, elements.mean()),
        ('mean', 3, elements.sum() / 3),
        ('mean', torch.tensor(3), elements.sum() / 3),
        ('none', 3, elements),
    ):
        loss = module(student, teacher, *extra, weight, avg_factor, reduction)
        torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match=r"avg_factor=3 .*reduction='sum'"):
        module(student, teacher, *extra, weight, 3, 'sum')
    with pytest.raises(ValueError, match=r"reduction_override .* found 'avg'"):
        module(student, teacher, *extra, reduction_override='avg')


@all_losses
def test_loss_weight_is_a_factor(name):
    module, student, teacher, extra = inputs(name)
    before, own = module(student, teacher, *extra), module.loss_weight
    module.loss_weight = 3 * own
    after = module(student, teacher, *extra)
    module.loss_weight = own
    torch.testing.assert_close(after, 3 * before)


@pytest.mark.parametrize('loss_class', [getattr(kd_det.losses, n) for n in kd_det.losses.__all__
                                        if n.endswith('Loss')])
def test_constructors_check_the_common_arguments(loss_class):
    filled = dict(channels=4) if getattr(loss_class, 'needs_channels', False) else {}
    with pytest.raises(ValueError, match=r'loss_weight .* found -1'):
        loss_class(**filled, loss_weight=-1)
    with pytest.raises(TypeError, match=r"loss_weight .* found '1'"):
        loss_class(**filled, loss_weight='1')
    if 'reduction' in inspect.signature(loss_class).parameters:  # losses on maps have one form
        with pytest.raises(ValueError, match=r"reduction .* found 'batchmean'"):
            loss_class(reduction='batchmean')
    # what is not trained leaves nothing in a checkpoint
    assert bool(loss_class(**filled).state_dict()) == bool(filled)


def test_reduction_by_hand():
    loss = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert reduce_loss(loss).item() == 2.5
    assert reduce_loss(loss, torch.tensor([1, 0])).item() == 0.75           # (1 + 2) / 4
    assert reduce_loss(loss, torch.tensor([[1, 0], [0, 1]])).item() == 1.25  # (1 + 4) / 4
    assert reduce_loss(loss, torch.tensor([[2], [1]]), 'sum').item() == 13   # 2 (1 + 2) + 3 + 4
    assert reduce_loss(loss, torch.tensor([True, False]), avg_factor=1).item() == 3
    assert reduce_loss(loss * 0, avg_factor=0).item() == 0


def test_reduction_refuses_what_does_not_fit():
    loss = torch.ones(3, 2)
    for shape in ((2,), (2, 3), (1,), (3, 2, 1)):
        with pytest.raises(ValueError, match=r'weight .* \(3, 2\)'):
            reduce_loss(loss, torch.ones(shape))
    for avg_factor in (-1.0, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='avg_factor'):
            reduce_loss(loss, avg_factor=avg_factor)


def test_reduction_equals_mmdetections():
    pytest.importorskip('mmdet')
    from mmdet.models.losses.utils import weight_reduce_loss

    loss, weight = rows(7, 3, 0), rows(7, 3, 1).abs()
    for reduction, avg_factor in (
        ('none', None), ('none', 5.0), ('sum', None), ('mean', None), ('mean', 5.0),
        ('mean', torch.tensor(5.0)),
    ):
        torch.testing.assert_close(
            reduce_loss(loss, weight, reduction, avg_factor),
            weight_reduce_loss(loss, weight, reduction, avg_factor),
        )


def test_losses_need_nothing_but_torch():
    allowed = {'torch', 'math', 'collections', 'typing'}
    files = sorted(Path(kd_det.losses.__file__).parent.glob('*.py'))
    assert len(files) > 6
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found = {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found = {node.module.split('.')[0]}
            elif isinstance(node, ast.ImportFrom) and node.level == 2:
                assert node.module.split('.')[0] in ('arguments', 'adapters'), f'{file.name} imports {node.module}'
                continue
            else:
                continue
            assert found <= allowed, f'{file.name} imports {found - allowed}'
