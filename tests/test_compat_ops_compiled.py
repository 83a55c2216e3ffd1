"""The served ops against a compiled ``mmcv._ext``, where one is installed."""
import sys
from types import SimpleNamespace

import pytest
import torch

from kd_det.compat import ext

pytest.importorskip('mmcv')
if ext.backend() != 'compiled':
    pytest.skip('needs MMCV with compiled ops, here they are missing', allow_module_level=True)
import mmcv.ops

from kd_det.compat.ops import SERVED

CUDA = torch.cuda.is_available()
DEVICE = 'cuda' if CUDA else 'cpu'  # compiled MMCV has most kernels on CUDA only
needs_cuda = pytest.mark.skipif(not CUDA, reason='compiled MMCV has this kernel on CUDA only')


def both(monkeypatch, family, call):
    """Results of ``call`` with the compiled ops and with the served ones."""
    compiled = call()
    monkeypatch.setattr(sys.modules[f'mmcv.ops.{family}'], 'ext_module', SimpleNamespace(**SERVED))
    return compiled, call()


def with_gradients(op, *leaves):
    def call():
        inputs = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        out = op(*inputs)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]
    return call


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def boxes_and_scores(count=300):
    corner, sides = rand(count, 2) * 30, rand(count, 2, seed=1).abs() * 20
    # rounded scores and boxes: ties and equal overlaps must fall alike
    return (torch.cat([corner, corner + sides], 1).round(),
            (rand(count, seed=2).sigmoid() * 50).round() / 50)


def distinct_scores(count):
    return torch.randperm(count, generator=torch.Generator().manual_seed(3)).float().to(DEVICE)


def rois():
    return torch.tensor([[0, 1.0, 2, 13, 11], [1, 0, 0, 27, 19], [0, 8.3, 4.1, 9, 4.9],
                         [1, 3, 1, 25, 40]], device=DEVICE)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.3, 0.5, 0.7])
def test_nms(monkeypatch, threshold, offset):
    boxes, _ = boxes_and_scores()
    scores = distinct_scores(len(boxes))  # among equal scores the compiled order is open
    compiled, served = both(monkeypatch, 'nms',
                            lambda: mmcv.ops.nms(boxes, scores, threshold, offset)[1])
    assert torch.equal(compiled, served)


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_with_ties(monkeypatch, method):
    boxes, scores = boxes_and_scores()
    boxes[:, 2:] += 1  # no box without area: compiled divides 0 by 0 there
    compiled, served = both(monkeypatch, 'nms',
                            lambda: mmcv.ops.soft_nms(boxes, scores, method=method))
    assert torch.equal(compiled[1], served[1])
    torch.testing.assert_close(compiled[0], served[0])


def test_nms_match(monkeypatch):
    boxes, _ = boxes_and_scores()
    scores = distinct_scores(len(boxes))
    dets = torch.cat([boxes, scores[:, None]], 1)
    compiled, served = both(monkeypatch, 'nms', lambda: mmcv.ops.nms_match(dets, 0.3))
    assert [g.tolist() for g in compiled] == [g.tolist() for g in served]


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align(monkeypatch, mode, ratio, aligned):
    layer = mmcv.ops.RoIAlign((3, 2), 0.5, ratio, mode, aligned)
    compiled, served = both(monkeypatch, 'roi_align',
                            with_gradients(lambda m: layer(m, rois()), rand(2, 3, 10, 14)))
    torch.testing.assert_close(compiled, served)


@needs_cuda
def test_roi_pool(monkeypatch):
    layer = mmcv.ops.RoIPool((3, 2), 0.5)
    compiled, served = both(monkeypatch, 'roi_pool',
                            with_gradients(lambda m: layer(m, rois()), rand(2, 3, 10, 14)))
    torch.testing.assert_close(compiled, served)


@needs_cuda
def test_deform_roi_pool(monkeypatch):
    op = mmcv.ops.deform_roi_pool
    inner = rois()[:2] * torch.tensor([1, .5, .5, .5, .5], device=DEVICE)  # clear of the border
    compiled, served = both(monkeypatch, 'deform_roi_pool', with_gradients(
        lambda m, o: op(m, inner, o, (3, 2), 0.5, 2, 0.1),
        rand(2, 3, 10, 14), rand(2, 2, 3, 2, seed=1).abs() * 0.1))
    torch.testing.assert_close(compiled, served)


@pytest.mark.parametrize('groups, deform', [(1, 1), (2, 1), (1, 2)])
def test_deform_conv(monkeypatch, groups, deform):
    geometry = ((2, 1), (1, 2), (1, 2), groups, deform)
    compiled, served = both(monkeypatch, 'deform_conv', with_gradients(
        lambda x, o, w: mmcv.ops.deform_conv2d(x, o, w, *geometry),
        rand(2, 4, 6, 7), rand(2, deform * 12, 3, 9), rand(6, 4 // groups, 3, 2)))
    torch.testing.assert_close(compiled, served, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('groups, deform', [(1, 1), (2, 1), (1, 2)])
def test_modulated_deform_conv(monkeypatch, groups, deform):
    geometry = ((2, 1), (1, 2), (1, 2), groups, deform)
    compiled, served = both(monkeypatch, 'modulated_deform_conv', with_gradients(
        lambda *a: mmcv.ops.modulated_deform_conv2d(*a, *geometry),
        rand(2, 4, 6, 7), rand(2, deform * 12, 3, 9), rand(2, deform * 6, 3, 9, seed=1),
        rand(6, 4 // groups, 3, 2), rand(6)))
    torch.testing.assert_close(compiled, served, rtol=1e-4, atol=1e-4)


def test_modulated_deform_conv_with_larger_offsets(monkeypatch):
    geometry = ((1, 1), (1, 1), (1, 1), 1, 1)
    compiled, served = both(monkeypatch, 'modulated_deform_conv', with_gradients(
        lambda *a: mmcv.ops.modulated_deform_conv2d(*a, None, *geometry),
        rand(2, 4, 5, 6), rand(2, 18, 9, 12), rand(2, 9, 9, 12, seed=1), rand(6, 4, 3, 3)))
    torch.testing.assert_close(compiled, served, rtol=1e-4, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize('op', ['sigmoid_focal_loss', 'softmax_focal_loss'])
def test_focal_loss(monkeypatch, op):
    target = torch.arange(20, device=DEVICE) % 4
    weight = torch.tensor([0.5, 1, 2, 3], device=DEVICE)
    compiled, served = both(monkeypatch, 'focal_loss', with_gradients(
        lambda x: getattr(mmcv.ops, op)(x, target, 2.0, 0.25, weight, 'mean'), rand(20, 4)))
    torch.testing.assert_close(compiled, served)


@needs_cuda
def test_deformable_attention(monkeypatch):
    shapes = torch.tensor([[3, 4], [2, 2]], device=DEVICE)
    starts = torch.tensor([0, 12], device=DEVICE)
    op = sys.modules['mmcv.ops.multi_scale_deform_attn'].MultiScaleDeformableAttnFunction.apply
    compiled, served = both(monkeypatch, 'multi_scale_deform_attn', with_gradients(
        lambda v, s, a: op(v, shapes, starts, s, a, 2),
        rand(2, 16, 2, 4), rand(2, 5, 2, 2, 3, 2).sigmoid(), rand(2, 5, 2, 2, 3).sigmoid()))
    torch.testing.assert_close(compiled, served, rtol=1e-4, atol=1e-5)


@needs_cuda
def test_carafe(monkeypatch):
    compiled, served = both(monkeypatch, 'carafe', with_gradients(
        lambda x, m: mmcv.ops.carafe(x, m, 3, 2, 2), rand(2, 4, 5, 6), rand(2, 18, 10, 12)))
    torch.testing.assert_close(compiled, served, rtol=1e-4, atol=1e-4)
