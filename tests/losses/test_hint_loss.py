"""The hint loss: hand-computed values, its scale, its mask."""
import pytest
import torch
import torch.nn.functional as F

from kd_det.losses import HintLoss, hint_loss


def features(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ('norm', 'scale_free', 'expected'),
    [
        ('l2', False, 5.0),      # (1 + 9) / 2
        ('l2', True, 0.5),       # 5 / ((4 + 16) / 2)
        ('l1', False, 2.0),      # (1 + 3) / 2
        ('l1', True, 2 / 3),     # 2 / ((2 + 4) / 2)
    ],
)
def test_by_hand(norm, scale_free, expected):
    guided, hint = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, -4.0]]) * torch.tensor([1, -1])
    assert hint_loss(guided, hint, norm, scale_free).item() == pytest.approx(expected)


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (6, 7)])
def test_without_scale_it_is_torchs(shape):
    guided, hint = features(*shape), features(*shape, seed=1)
    torch.testing.assert_close(hint_loss(guided, hint, 'l2', False), F.mse_loss(guided, hint))
    torch.testing.assert_close(hint_loss(guided, hint, 'l1', False), F.l1_loss(guided, hint))


@pytest.mark.parametrize('norm', ['l2', 'l1'])
def test_scale_free(norm):
    guided, hint = features(2, 3, 4, 4), features(2, 3, 4, 4, seed=1)
    loss = hint_loss(guided, hint, norm)
    for factor in (1e-4, 10.0, 1e4):
        torch.testing.assert_close(hint_loss(factor * guided, factor * hint, norm), loss)
    # nothing explained is 1, all explained is 0
    torch.testing.assert_close(hint_loss(torch.zeros_like(hint), hint, norm).item(), 1.0)
    assert hint_loss(hint, hint, norm).item() == 0.0


@pytest.mark.parametrize('norm', ['l2', 'l1'])
@pytest.mark.parametrize('scale_free', [True, False])
def test_gradcheck(norm, scale_free):
    hint, mask = features(2, 3, 2, 2, seed=1), features(2, 1, 2, 2, seed=2) > 0
    guided = features(2, 3, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: hint_loss(v, hint, norm, scale_free, mask), guided)


def test_a_hint_of_zeros_is_compared_unscaled():
    guided = torch.full((2, 3), 0.5, requires_grad=True)
    loss = hint_loss(guided, torch.zeros(2, 3))
    assert loss.item() == 0.25
    loss.backward()
    assert guided.grad.isfinite().all()


def test_a_broken_teacher_shows():
    assert hint_loss(torch.ones(2, 3), torch.full((2, 3), float('nan'))).isnan()


@pytest.mark.parametrize('norm', ['l2', 'l1'])
def test_mask_equals_the_features_inside_it(norm):
    guided, hint = features(2, 3, 4, 6), features(2, 3, 4, 6, seed=1)
    expected = hint_loss(guided[..., :4], hint[..., :4], norm)
    mask = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    mask[..., :4] = True
    guided[..., 4:] = float('nan')  # what lies outside must not matter at all
    guided.requires_grad_()
    torch.testing.assert_close(hint_loss(guided, hint, norm, mask=mask), expected)
    loss = HintLoss(norm, loss_weight=2.0)(guided, hint, mask=mask)
    torch.testing.assert_close(loss, 2 * expected)
    loss.backward()
    assert guided.grad.isfinite().all()


def test_an_empty_mask_is_zero():
    guided = torch.ones(1, 2, 3, 3, requires_grad=True)
    loss = hint_loss(guided, torch.ones(1, 2, 3, 3), mask=torch.zeros(1, 1, 1, 1).bool())
    assert loss.item() == 0.0
    loss.backward()
    assert not guided.grad.any()


def test_module_weights_elements():
    # errors 1 and 9, mean Z^2 = 10, gamma 0.5: 0.5 * (1 * 1 + 0.5 * 9) / 10 / 2
    guided, hint = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 4.0]])
    weight = torch.tensor([[1.0, 0.5]])
    assert HintLoss()(guided, hint, weight).item() == pytest.approx(0.1375)
    assert HintLoss()(guided, hint).item() == pytest.approx(0.25)
    none = HintLoss()(guided, hint, weight, reduction_override='none')
    assert none.tolist() == [pytest.approx([0.05, 0.225])]


def test_refusals():
    with pytest.raises(ValueError, match="norm must be one of 'l2', 'l1', found 'L2'"):
        HintLoss(norm='L2')
    with pytest.raises(TypeError, match='scale_free'):
        HintLoss(scale_free=1)
    with pytest.raises(ValueError, match=r'guided \(2, 3, 4, 4\), hint \(2, 3, 2, 2\)'):
        hint_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2))
    maps = torch.zeros(2, 2, 3, 3)
    with pytest.raises(ValueError, match=r'mask of shape \(2, 3, 3\)'):  # (N, H, W), N == C
        hint_loss(maps, maps, mask=torch.ones(2, 3, 3).bool())
    with pytest.raises(ValueError, match='bool'):
        hint_loss(maps, maps, mask=torch.ones(2, 1, 3, 3))
