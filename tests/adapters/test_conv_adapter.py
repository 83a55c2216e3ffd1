"""Adapters for feature maps: what they compute, how sizes meet, how they start."""
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kd_det.adapters import ConvAdapter, match_size


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_by_one_convolution_is_a_linear_map_of_each_place():
    adapter, guided = ConvAdapter(3, 5), maps(2, 3, 4, 6)
    conv = adapter.layers[0]
    nn.init.normal_(conv.bias)
    expected = torch.einsum('oc,nchw->nohw', conv.weight[:, :, 0, 0], guided)
    torch.testing.assert_close(adapter(guided), expected + conv.bias[:, None, None])


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
@pytest.mark.parametrize('num_layers', [1, 2, 3])
def test_every_variant_keeps_the_size_and_trains_all_its_weights(kernel_size, num_layers):
    adapter = ConvAdapter(3, 5, kernel_size, num_layers, hidden_channels=7)
    output = adapter(maps(2, 3, 6, 7))
    assert output.shape == (2, 5, 6, 7)
    assert (output < 0).any()  # no ReLU at the end: hints have negative values
    output.square().sum().backward()
    assert all(p.grad.any() for p in adapter.parameters())


def test_two_layers_have_a_relu_between():
    adapter, guided = ConvAdapter(3, 5, num_layers=2), maps(2, 3, 4, 4)
    first, last = adapter.layers[0], adapter.layers[-1]
    torch.testing.assert_close(adapter(guided), last(first(guided).relu()))


@pytest.mark.parametrize(('norm', 'kind'), [('BN', nn.BatchNorm2d), ('GN', nn.GroupNorm)])
def test_norm_goes_between_layers(norm, kind):
    adapter = ConvAdapter(3, 6, num_layers=3, norm=norm)
    kinds = [type(layer) for layer in adapter.layers]
    assert kinds == [nn.Conv2d, kind, nn.ReLU, nn.Conv2d, kind, nn.ReLU, nn.Conv2d]
    assert adapter(maps(2, 3, 4, 4)).isfinite().all()


def test_padding_adds_zeros_at_the_right_and_at_the_bottom():
    adapter, guided = ConvAdapter(3, 5), maps(1, 3, 4, 6)
    nn.init.ones_(adapter.layers[0].bias)
    output = adapter(guided, target_size=(5, 8))
    assert output.shape == (1, 5, 5, 8)
    assert torch.equal(output[..., :4, :6], adapter(guided))
    assert not output[..., 4:, :].any()  # zero and not the bias
    assert not output[..., :, 6:].any()


def test_padding_drops_what_has_no_hint():
    guided = maps(1, 3, 7, 5)
    output = match_size(guided, (6, 6), 'pad')
    assert torch.equal(output[..., :5], guided[..., :6, :])
    assert not output[..., 5].any()


@pytest.mark.parametrize('size', [(8, 12), (2, 3), (4, 12), (1, 1)])
def test_padding_refuses_other_strides(size):
    with pytest.raises(ValueError, match=rf'\(1, 3, 4, 6\), hint \(.., {size[0]}, {size[1]}\)'):
        ConvAdapter(3, 3)(maps(1, 3, 4, 6), size)


def test_padding_bridges_the_rounding_of_the_smallest_maps():
    assert match_size(maps(1, 3, 1, 2), (2, 1), 'pad').shape == (1, 3, 2, 1)


@pytest.mark.parametrize('size', [(8, 12), (2, 3), (5, 6)])
def test_interpolation_is_bilinear_at_pixel_centres(size):
    # a map linear in the coordinates of pixel centres stays so, away from the border
    y, x = torch.meshgrid(torch.arange(4.0) + 0.5, torch.arange(6.0) + 0.5, indexing='ij')
    guided = torch.stack([y, x])[None]                                    # (1, 2, 4, 6)
    output = ConvAdapter(2, 2, init='identity', resize='interpolate')(guided, size)
    y, x = torch.meshgrid(
        (torch.arange(size[0]) + 0.5) * 4 / size[0],
        (torch.arange(size[1]) + 0.5) * 6 / size[1],
        indexing='ij',
    )
    expected = torch.stack([y.clamp(0.5, 3.5), x.clamp(0.5, 5.5)])[None]
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize('resize', ['pad', 'interpolate', 'none'])
def test_equal_sizes_are_left_alone(resize):
    adapter, guided = ConvAdapter(3, 3, resize=resize), maps(1, 3, 4, 6)
    assert torch.equal(adapter(guided, (4, 6)), adapter(guided))
    assert torch.equal(adapter(guided), F.conv2d(guided, *adapter.layers[0].parameters()))


def test_resize_none_refuses_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 6\), hint \(.., 5, 6\).*'none'"):
        ConvAdapter(3, 3, resize='none')(maps(1, 3, 4, 6), (5, 6))


def test_identity_init_starts_as_the_plain_hint():
    for kernel_size in (1, 3):
        adapter, guided = ConvAdapter(4, 4, kernel_size, init='identity'), maps(2, 4, 5, 5)
        torch.testing.assert_close(adapter(guided), guided)
    for arguments in ((4, 5), (4, 4, 1, 2)):
        with pytest.raises(ValueError, match="init='identity'"):
            ConvAdapter(*arguments, init='identity')


@pytest.mark.parametrize('num_layers', [1, 2])
def test_output_starts_at_the_scale_of_the_input(num_layers):
    adapter = ConvAdapter(256, 256, 3, num_layers)
    with torch.no_grad():
        output = adapter(maps(1, 256, 8, 8))[..., 2:-2, 2:-2]  # away from the zero borders
    assert 0.8 < output.std().item() < 1.25
    assert all(not p.any() for name, p in adapter.named_parameters() if 'bias' in name)


def test_weights_have_the_stated_variance():
    first, last = (ConvAdapter(64, 128, 3, 2).layers[i].weight.detach() for i in (0, -1))
    assert first.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert last.std().item() == pytest.approx(math.sqrt(1 / (128 * 9)), rel=0.02)


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        ({'in_channels': 0}, ValueError, 'in_channels .* found 0'),
        ({'out_channels': 2.0}, TypeError, r'out_channels .* found 2\.0'),
        ({'kernel_size': 2}, ValueError, 'kernel_size must be odd .* found 2'),
        ({'num_layers': 0}, ValueError, 'num_layers .* found 0'),
        ({'hidden_channels': 0}, ValueError, 'hidden_channels .* found 0'),
        ({'resize': 'crop'}, ValueError, "resize must be one of 'pad', .* found 'crop'"),
        ({'norm': 'LN', 'num_layers': 2}, ValueError, "norm must be one of .* found 'LN'"),
        ({'norm': 'BN'}, ValueError, "norm='BN' .* num_layers >= 2"),
        ({'bias': 'auto'}, TypeError, "bias .* found 'auto'"),
        ({'init': 'zero'}, ValueError, "init must be one of .* found 'zero'"),
    ],
)
def test_constructor_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        ConvAdapter(**{'in_channels': 3, 'out_channels': 5, **arguments})


def test_guided_layers_of_other_channels_are_refused():
    for shape in ((2, 4, 6, 6), (2, 3)):
        with pytest.raises(ValueError, match=r'built for \(N, 3, h, w\)'):
            ConvAdapter(3, 5)(maps(*shape))
