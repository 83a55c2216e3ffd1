"""Deformable, masked and CARAFE operators and deformable attention of MMCV."""
import pytest
import torch
import torch.nn.functional as F
import torchvision

from kd_det.compat import ext

pytest.importorskip('mmcv')
ext.install()
from mmcv.ops import MaskedConv2d, deform_conv2d, modulated_deform_conv2d  # noqa: E402
from mmcv.ops.carafe import carafe  # noqa: E402
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction  # noqa: E402

GEOMETRIES = {  # stride, padding, dilation (y, x), groups, deform_groups
    'plain': ((1, 1), (1, 1), (1, 1), 1, 1),
    'odd': ((2, 1), (1, 2), (1, 2), 2, 1),
    'groups': ((1, 2), (2, 1), (2, 1), 1, 2),
}


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def conv_inputs(geometry, kernel=(3, 2), dtype=torch.float64, batch=2):
    stride, padding, dilation, groups, deform = geometry
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip((6, 7), padding, dilation, kernel, stride)]
    taps = kernel[0] * kernel[1]
    return (rand(batch, 4, 6, 7, dtype=dtype), rand(batch, deform * 2 * taps, *size, seed=1,
                                                    dtype=dtype),
            rand(batch, deform * taps, *size, seed=2, dtype=dtype).sigmoid(),
            rand(6, 4 // groups, *kernel, seed=3, dtype=dtype), rand(6, seed=4, dtype=dtype))


def plain_deform_conv(x, offset, mask, weight, geometry):
    """Sample with grid_sample, then contract: independent of any deformable kernel."""
    (sy, sx), (py, px), (dy, dx), groups, deform = geometry
    batch, channels, height, width = x.shape
    kh, kw = weight.shape[2:]
    rows, columns = offset.shape[2:]
    offset = offset.view(batch, deform, kh * kw, 2, rows, columns)
    mask = mask.view(batch, deform, kh * kw, rows, columns)
    out = 0
    for tap in range(kh * kw):
        i, j = divmod(tap, kw)
        y = torch.arange(rows, dtype=x.dtype)[:, None] * sy - py + i * dy + offset[:, :, tap, 0]
        z = torch.arange(columns, dtype=x.dtype) * sx - px + j * dx + offset[:, :, tap, 1]
        grid = torch.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
        parts = [F.grid_sample(x[:, g * channels // deform:(g + 1) * channels // deform],
                               grid[:, g], align_corners=True) * mask[:, g, None, tap]
                 for g in range(deform)]
        out = out + F.conv2d(torch.cat(parts, 1), weight[:, :, i:i + 1, j:j + 1], groups=groups)
    return out


@pytest.mark.parametrize('name', GEOMETRIES)
def test_deform_conv_v1_equals_grid_sampling(name):
    geometry = GEOMETRIES[name]
    x, offset, mask, weight, _ = conv_inputs(geometry)
    leaves = [t.requires_grad_() for t in (x, offset, weight)]
    got = deform_conv2d(*leaves, *geometry)
    want = plain_deform_conv(x, offset, torch.ones_like(mask), weight, geometry)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), leaves),
                               torch.autograd.grad(want.square().sum(), leaves))


@pytest.mark.parametrize('name', GEOMETRIES)
@pytest.mark.parametrize('with_bias', [True, False])
def test_deform_conv_v2_equals_grid_sampling(name, with_bias):
    geometry = GEOMETRIES[name]
    x, offset, mask, weight, bias = conv_inputs(geometry)
    leaves = [t.requires_grad_() for t in (x, offset, mask, weight, bias)][:5 if with_bias else 4]
    got = modulated_deform_conv2d(x, offset, mask, weight, bias if with_bias else None, *geometry)
    want = plain_deform_conv(x, offset, mask, weight, geometry)
    if with_bias:
        want = want + bias[:, None, None]
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), leaves),
                               torch.autograd.grad(want.square().sum(), leaves))


def test_deform_conv_gradcheck():
    geometry = ((1, 1), (0, 0), (1, 1), 1, 1)
    x, offset, mask, weight, bias = (
        t.requires_grad_() for t in (
            rand(1, 2, 3, 3), rand(1, 8, 2, 2, seed=1) * 0.3, rand(1, 4, 2, 2, seed=2),
            rand(2, 2, 2, 2, seed=3), rand(2, seed=4)))
    assert torch.autograd.gradcheck(lambda *a: deform_conv2d(*a, *geometry), (x, offset, weight))
    assert torch.autograd.gradcheck(lambda *a: modulated_deform_conv2d(*a, *geometry),
                                    (x, offset, mask, weight, bias))


def test_deform_conv_without_offsets_is_a_convolution():
    geometry = GEOMETRIES['odd']
    x, offset, mask, weight, bias = conv_inputs(geometry)
    want = F.conv2d(x, weight, bias, *geometry[:4])
    got = modulated_deform_conv2d(x, torch.zeros_like(offset), torch.ones_like(mask), weight,
                                  bias, *geometry)
    torch.testing.assert_close(got, want)


def test_deform_conv_v1_weight_gradient_when_only_the_weight_trains_and_twice():
    """The weight's gradient takes another route when the input needs none."""
    geometry = GEOMETRIES['plain']
    x, offset, _, weight, _ = conv_inputs(geometry)
    weight.requires_grad_()
    alone, = torch.autograd.grad(deform_conv2d(x, offset, weight, *geometry).sum(), weight)
    x.requires_grad_()
    out = deform_conv2d(x, offset, weight, *geometry).sum()
    first = torch.autograd.grad(out, (x, weight), retain_graph=True)
    second = torch.autograd.grad(out * 3, (x, weight))
    torch.testing.assert_close(first[1], alone)
    torch.testing.assert_close(second[1], 3 * alone)
    torch.testing.assert_close(second[0], 3 * first[0])


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 1e38])
def test_deform_conv_counts_samples_at_broken_offsets_as_zero(bad):
    """A diverged model must not end the process, as torchvision's kernel does on NaN."""
    geometry = GEOMETRIES['plain']
    x, offset, mask, weight, bias = conv_inputs(geometry)
    offset = torch.where(torch.arange(12).view(-1, 1, 1) < 2, bad, offset).requires_grad_()
    leaves = (x.requires_grad_(), offset, weight.requires_grad_())
    kept = mask.clone()
    kept[:, 0] = 0  # the tap whose offsets are broken
    want = modulated_deform_conv2d(x, offset.detach().nan_to_num(0, 0, 0), kept, weight, bias,
                                   *geometry)
    torch.testing.assert_close(modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry),
                               want)
    out = deform_conv2d(*leaves, *geometry)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), leaves))


def test_deform_conv_v2_reads_larger_offsets_as_the_kernel_does():
    """DyHead gives a coarse level the offsets of a finer one; MMCV reads them row after row."""
    geometry = GEOMETRIES['plain']
    x, offset, mask, weight, bias = conv_inputs(geometry)
    offset = torch.cat([offset, rand(*offset.shape, seed=9)], 2).requires_grad_()  # twice the rows
    mask = torch.cat([mask, rand(*mask.shape, seed=8)], 2).requires_grad_()
    rows = offset.size(2) // 2
    got = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)
    # the first half of the channels, in memory order, fills the rows of all
    half = offset.reshape(2, 2, -1)[:, 0].reshape(2, 12, rows, -1)
    want = plain_deform_conv(x, half, mask.reshape(2, 2, -1)[:, 0].reshape(2, 6, rows, -1), weight,
                             geometry) + bias[:, None, None]
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), (offset, mask)),
                               torch.autograd.grad(want.square().sum(), (offset, mask)))
    with pytest.raises(ValueError, match=r'modulated_deform_conv: mask has shape'):
        modulated_deform_conv2d(x, offset, mask[:, :, :3], weight, bias, *geometry)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_deform_conv_half_precision_is_the_rounded_float_result(dtype):
    geometry = GEOMETRIES['plain']
    inputs = conv_inputs(geometry, dtype=dtype)
    exact = [t.float() for t in inputs]
    x, offset, mask, weight, bias = inputs
    x.requires_grad_()
    out = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)
    want = torchvision.ops.deform_conv2d(exact[0], exact[1], exact[3], exact[4], *geometry[:3],
                                         mask=exact[2])
    assert torch.equal(out, want.to(dtype))
    out.sum().backward()
    assert x.grad.dtype == dtype and x.grad.any()
    v1 = deform_conv2d(x, offset, weight, *geometry)
    want = torchvision.ops.deform_conv2d(exact[0], exact[1], exact[3], None, *geometry[:3])
    assert torch.equal(v1, want.to(dtype))


def attention_inputs():
    shapes = torch.tensor([[3, 4], [2, 2]])
    starts = torch.tensor([0, 12])
    generator = torch.Generator().manual_seed(5)
    value = rand(2, 16, 2, 3)
    # some locations lie outside [0, 1], where the map counts as zero
    where = torch.rand(2, 5, 2, 2, 3, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(2, 5, 2, 2, 3, generator=generator, dtype=torch.float64)
    return value, shapes, starts, where, weights


def plain_attention(value, shapes, starts, where, weights):
    """Bilinear sum with scalar loops, pixel (i, j) centred at ((j + .5) / W, (i + .5) / H)."""
    batch, queries, heads, levels, points, _ = where.shape
    out = value.new_zeros(batch, queries, heads, value.size(-1))
    for n in range(batch):
        for q in range(queries):
            for m in range(heads):
                for lv in range(levels):
                    h, w = shapes[lv].tolist()
                    for p in range(points):
                        x, y = (where[n, q, m, lv, p] * torch.tensor([w, h]) - 0.5).tolist()
                        for i in range(h):
                            for j in range(w):
                                near = max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
                                out[n, q, m] += (near * weights[n, q, m, lv, p]
                                                 * value[n, starts[lv] + i * w + j, m])
    return out.flatten(2)


def test_deformable_attention_equals_plain_loop():
    inputs = attention_inputs()
    torch.testing.assert_close(MultiScaleDeformableAttnFunction.apply(*inputs, 64),
                               plain_attention(*inputs))


def test_deformable_attention_gradcheck():
    value, shapes, starts, where, weights = attention_inputs()
    leaves = [t.requires_grad_() for t in (value, where[:, :2], weights[:, :2])]
    leaves = [t.detach().requires_grad_() for t in leaves]
    assert torch.autograd.gradcheck(
        lambda v, s, a: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, s, a, 64),
        leaves)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_deformable_attention_half_precision(dtype):
    value, shapes, starts, where, weights = attention_inputs()
    value, where, weights = (t.to(dtype) for t in (value, where, weights))
    value.requires_grad_()
    out = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, where, weights, 64)
    want = plain_attention(value.detach().double(), shapes, starts, where.double(),
                           weights.double())
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), want, rtol=2 ** -7, atol=2 ** -8)
    out.sum().backward()
    assert value.grad.dtype == dtype and value.grad.any()


def test_masked_conv_is_the_convolution_where_the_mask_is_set():
    layer = MaskedConv2d(3, 4, 3, padding=1)
    x, mask = rand(1, 3, 5, 6, dtype=torch.float32), torch.zeros(1, 5, 6)
    mask[0, [0, 2, 4], [0, 3, 5]] = 1
    with torch.no_grad():
        want = F.conv2d(x, layer.weight, layer.bias, padding=1) * mask
        torch.testing.assert_close(layer(x, mask), want)
        assert not layer(x, torch.zeros_like(mask)).any()


def plain_carafe(x, masks, kernel, groups, scale):
    batch, channels, height, width = x.shape
    out = x.new_zeros(batch, channels, height * scale, width * scale)
    padded = F.pad(x, [kernel // 2] * 4)
    for c in range(channels):
        g = c // (channels // groups)
        for i in range(height * scale):
            for j in range(width * scale):
                taps = masks[:, g * kernel ** 2:(g + 1) * kernel ** 2, i, j]
                patch = padded[:, c, i // scale:i // scale + kernel,
                               j // scale:j // scale + kernel]
                out[:, c, i, j] = (patch.flatten(1) * taps).sum(1)
    return out


@pytest.mark.parametrize('kernel, groups, scale', [(3, 1, 2), (5, 2, 1), (1, 2, 3)])
def test_carafe_equals_plain_loop_and_autograd_of_it(kernel, groups, scale):
    x = rand(2, 4, 3, 2).requires_grad_()
    masks = rand(2, groups * kernel ** 2, 3 * scale, 2 * scale, seed=1).requires_grad_()
    got, want = carafe(x, masks, kernel, groups, scale), plain_carafe(x, masks, kernel, groups,
                                                                      scale)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), (x, masks)),
                               torch.autograd.grad(want.square().sum(), (x, masks)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_cuda_equals_cpu(dtype):
    geometry = GEOMETRIES['groups']
    grads = {}
    for device in ('cpu', 'cuda'):
        inputs = [t.to(device).requires_grad_() for t in conv_inputs(geometry, dtype=dtype)]
        modulated_deform_conv2d(*inputs, *geometry).float().square().sum().backward()
        v1 = deform_conv2d(inputs[0], inputs[1], inputs[3], *geometry)
        v1.float().square().sum().backward()
        value, shapes, starts, where, weights = (t.to(device) for t in attention_inputs())
        value = value.to(dtype).requires_grad_()
        MultiScaleDeformableAttnFunction.apply(value, shapes, starts, where, weights,
                                               64).float().sum().backward()
        grads[device] = [t.grad.float().cpu() for t in [*inputs, value]]
    tolerance = {'rtol': 1e-4, 'atol': 1e-4} if dtype == torch.float32 else {'rtol': .1, 'atol': .1}
    torch.testing.assert_close(grads['cuda'], grads['cpu'], **tolerance)
