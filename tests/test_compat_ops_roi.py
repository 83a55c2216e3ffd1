"""RoIAlign, RoIPool and DeformRoIPool of MMCV against plain loops, torchvision and gradcheck."""
import math

import pytest
import torch
import torchvision

from kd_det.compat import ext

pytest.importorskip('mmcv')
ext.install()
from mmcv.ops import DeformRoIPool, RoIAlign, RoIPool  # noqa: E402
from mmcv.ops.deform_roi_pool import deform_roi_pool  # noqa: E402

ROIS = [[0, 1.0, 2.0, 13.0, 11.0], [1, 0.0, 0.0, 27.0, 19.0], [0, 8.3, 4.1, 9.0, 4.9],
        [1, -9.0, -6.0, 5.0, 40.0]]  # inside, the whole map, under a pixel, far outside


def features(dtype=torch.float64, size=(2, 3, 10, 14), seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rois(dtype=torch.float64):
    return torch.tensor(ROIS, dtype=dtype)


def bilinear(plane, y, x):
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    return ((plane[y0, x0] * (1 - y + y0) + plane[y1, x0] * (y - y0)) * (1 - x + x0)
            + (plane[y0, x1] * (1 - y + y0) + plane[y1, x1] * (y - y0)) * (x - x0)).item()


def plain_roi_align(maps, boxes, bins, scale, ratio, mode, aligned, offset=None, gamma=0.1):
    out = maps.new_zeros(len(boxes), maps.size(1), *bins)
    for r, (image, *box) in enumerate(boxes.tolist()):
        x1, y1, x2, y2 = (v * scale - 0.5 * aligned for v in box)
        w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        rows, columns = (ratio or math.ceil(s / n) for s, n in zip((h, w), bins))
        for c in range(maps.size(1)):
            for i in range(bins[0]):
                for j in range(bins[1]):
                    dx, dy = (0, 0) if offset is None else offset[r, :, i, j].tolist()
                    values = [bilinear(maps[int(image), c],
                                       y1 + gamma * h * dy + (i + (a + .5) / rows) * h / bins[0],
                                       x1 + gamma * w * dx + (j + (b + .5) / columns) * w / bins[1])
                              for a in range(rows) for b in range(columns)]
                    out[r, c, i, j] = max(values) if mode == 'max' else sum(values) / len(values)
    return out


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_equals_plain_loop(mode, ratio, aligned):
    maps, boxes = features()[:, :2], rois()
    got = RoIAlign((3, 2), 0.5, ratio, mode, aligned)(maps, boxes)
    want = plain_roi_align(maps, boxes, (3, 2), 0.5, ratio, mode, aligned)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_gradient_equals_torchvision(ratio, aligned):
    maps, boxes = features(torch.float32).requires_grad_(), rois(torch.float32)
    weight = torch.randn(len(boxes), 3, 3, 2)
    got = RoIAlign((3, 2), 0.5, ratio, 'avg', aligned)(maps, boxes)
    want = torchvision.ops.roi_align(maps, boxes, (3, 2), 0.5, ratio, aligned)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad((got * weight).sum(), maps),
                               torch.autograd.grad((want * weight).sum(), maps))


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_gradcheck(mode):
    layer = RoIAlign((2, 3), 0.5, 0, mode, True)
    maps = features(size=(2, 1, 5, 6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: layer(m, rois()), maps)


def test_roi_align_max_of_a_flat_map_is_its_value_and_splits_no_gradient():
    maps = torch.full((1, 1, 8, 8), 3.0, requires_grad=True)
    out = RoIAlign(2, 1.0, 2, 'max')(maps, torch.tensor([[0, 1.0, 1, 7, 7]]))
    assert torch.equal(out, torch.full((1, 1, 2, 2), 3.0))
    out.sum().backward()
    torch.testing.assert_close(maps.grad.sum(), torch.tensor(4.0))


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_align_half_precision_is_the_rounded_float_result(dtype, mode):
    maps = features(dtype).requires_grad_()
    out = RoIAlign(2, 0.5, 2, mode)(maps, rois(torch.float32))
    out.float().sum().backward()
    exact = maps.detach().float().requires_grad_()
    want = RoIAlign(2, 0.5, 2, mode)(exact, rois(torch.float32))
    want.sum().backward()
    assert out.dtype == dtype and maps.grad.dtype == dtype
    assert torch.equal(out, want.to(dtype))
    torch.testing.assert_close(maps.grad, exact.grad.to(dtype))


@pytest.mark.parametrize('layer', [RoIAlign(2), RoIAlign(2, pool_mode='max'), RoIPool(2),
                                   DeformRoIPool(2)], ids=['avg', 'max', 'pool', 'deform'])
def test_no_rois_give_no_output_and_zero_gradient(layer):
    maps = features().requires_grad_()
    out = layer(maps, rois()[:0])
    assert out.shape == (0, 3, 2, 2)
    out.sum().backward()
    assert not maps.grad.any()


@pytest.mark.parametrize('bad', [math.nan, math.inf])
@pytest.mark.parametrize('layer', [RoIAlign(2, 0.5), RoIAlign(2, 0.5, 2), RoIPool(2, 0.5),
                                   RoIAlign(2, 0.5, 2, 'max'), DeformRoIPool(2, 0.5, 2)],
                         ids=['avg', 'sampled', 'pool', 'max', 'deform'])
def test_broken_rois_give_nan_and_leave_the_others_alone(layer, bad):
    """A diverged model must show as NaN; torchvision's kernels end the process instead."""
    maps, boxes = features().requires_grad_(), rois()
    want = layer(maps, boxes)
    boxes[1, 3] = bad
    boxes[3] = bad
    got = layer(maps, boxes)
    assert got[[1, 3]].isnan().all()
    assert torch.equal(got[[0, 2]], want[[0, 2]])
    got[[0, 2]].sum().backward()
    assert maps.grad.isfinite().all()


def plain_roi_pool(maps, boxes, bins, scale):
    out = maps.new_zeros(len(boxes), maps.size(1), *bins)
    for r, (image, x1, y1, x2, y2) in enumerate(boxes.tolist()):
        def span(low, high, n, i, limit):
            start, size = low * scale, ((high + 1) * scale - low * scale) / n
            first, last = math.floor(start + i * size), math.ceil(start + (i + 1) * size)
            return slice(min(max(first, 0), limit), min(max(last, 0), limit))
        for i in range(bins[0]):
            for j in range(bins[1]):
                part = maps[int(image), :, span(y1, y2, bins[0], i, maps.size(2)),
                            span(x1, x2, bins[1], j, maps.size(3))]
                if part[0].numel():
                    out[r, :, i, j] = part.amax((1, 2))
    return out


def test_roi_pool_equals_plain_loop_and_autograd_of_it():
    maps = features().requires_grad_()
    got = RoIPool((3, 2), 0.5)(maps, rois())
    want = plain_roi_pool(maps, rois(), (3, 2), 0.5)
    torch.testing.assert_close(got, want)
    weight = torch.randn(got.shape, dtype=got.dtype)
    torch.testing.assert_close(torch.autograd.grad((got * weight).sum(), maps),
                               torch.autograd.grad((want * weight).sum(), maps))


def test_roi_pool_gradcheck_and_negative_maps():
    maps = -features(size=(2, 2, 5, 6)).abs()  # an empty bin must be 0, a full one negative
    assert torch.autograd.gradcheck(lambda m: RoIPool(2, 0.5)(m, rois()), maps.requires_grad_())
    outside = torch.tensor([[0, 100.0, 100, 120, 120]], dtype=torch.float64)
    assert not RoIPool(2, 0.5)(maps, outside).any()


def test_roi_pool_result_does_not_depend_on_the_chunking(monkeypatch):
    from kd_det.compat.ops import roi_pool as family
    maps = features()
    want = RoIPool((3, 2), 0.5)(maps, rois())
    monkeypatch.setattr(family, 'CHUNK_ELEMENTS', 1)
    assert torch.equal(RoIPool((3, 2), 0.5)(maps, rois()), want)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_pool_half_precision(dtype):
    maps = features(dtype).requires_grad_()
    out = RoIPool(2, 0.5)(maps, rois(dtype))
    assert torch.equal(out.double(), plain_roi_pool(maps.double(), rois(dtype).double(),
                                                    (2, 2), 0.5))
    out.sum().backward()
    assert maps.grad.dtype == dtype and maps.grad.any()


@pytest.mark.parametrize('ratio', [0, 2])
def test_deform_roi_pool_equals_plain_loop(ratio):
    maps, boxes = features()[:, :1], rois()
    offset = torch.randn(len(boxes), 2, 3, 2, dtype=torch.float64)
    got = deform_roi_pool(maps, boxes, offset, (3, 2), 0.5, ratio, 0.3)
    want = plain_roi_align(maps, boxes, (3, 2), 0.5, ratio, 'avg', True, offset, 0.3)
    torch.testing.assert_close(got, want)
    plain = deform_roi_pool(maps, boxes, None, (3, 2), 0.5, ratio, 0.3)
    torch.testing.assert_close(plain, RoIAlign((3, 2), 0.5, ratio)(maps, boxes))


def test_deform_roi_pool_gradcheck():
    maps = features(size=(2, 2, 5, 6)).requires_grad_()
    offset = torch.randn(4, 2, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, o: deform_roi_pool(m, rois(), o, (2, 2), 0.5, 2, 0.1), (maps, offset))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('layer', [RoIAlign(2, 0.5), RoIAlign(2, 0.5, pool_mode='max'),
                                   RoIPool(2, 0.5), DeformRoIPool(2, 0.5)],
                         ids=['avg', 'max', 'pool', 'deform'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_cuda_equals_cpu(layer, dtype):
    boxes = rois(torch.float32)
    here, there = (features(dtype).to(d).requires_grad_() for d in ('cpu', 'cuda'))
    want, got = layer(here, boxes), layer(there, boxes.cuda())
    torch.testing.assert_close(got.cpu(), want)
    want.sum().backward()
    got.sum().backward()
    torch.testing.assert_close(there.grad.cpu(), here.grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_roi_align_trains_under_deterministic_algorithms():
    maps = features(torch.float32).cuda().requires_grad_()
    want, = torch.autograd.grad(RoIAlign(2, 0.5)(maps, rois(torch.float32).cuda()).sum(), maps)
    torch.use_deterministic_algorithms(True)
    try:
        got, = torch.autograd.grad(RoIAlign(2, 0.5)(maps, rois(torch.float32).cuda()).sum(), maps)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(got, want)


def test_roi_align_deterministic_path_equals_the_kernel(monkeypatch):
    """The composite gradient that CUDA takes under deterministic algorithms, run on the CPU."""
    from kd_det.compat.ops.roi_align import roi_align_backward
    maps, boxes = features(), rois()
    bins = {'aligned_height': 3, 'aligned_width': 2, 'spatial_scale': 0.5, 'sampling_ratio': 0,
                'pool_mode': 1, 'aligned': True}
    grad = torch.randn(len(boxes), 3, 3, 2, dtype=torch.float64)
    want, got = torch.zeros_like(maps), torch.zeros_like(maps)
    roi_align_backward(grad, boxes, grad.new_zeros(0), grad.new_zeros(0), want, **bins)

    class OnCuda(torch.Tensor):
        is_cuda = True
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    roi_align_backward(grad.as_subclass(OnCuda), boxes, grad.new_zeros(0), grad.new_zeros(0), got,
                       **bins)
    torch.testing.assert_close(got, want)
    assert want.any()
