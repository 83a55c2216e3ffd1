"""Adapters for rows and tokens, and the absent adapter."""
import pytest
import torch
import torch.nn.functional as F

from kd_det.adapters import IdentityAdapter, LinearAdapter


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('shape', [(6, 3), (2, 5, 3)])
def test_linear_works_on_the_last_dimension(shape):
    adapter, guided = LinearAdapter(3, 7), rows(*shape)
    expected = F.linear(guided, *adapter.layers[0].parameters())
    assert torch.equal(adapter(guided), expected)
    assert torch.equal(adapter(guided, shape[1:-1]), expected)


def test_two_linear_layers_have_a_relu_between():
    adapter, guided = LinearAdapter(3, 7, num_layers=2, hidden_features=4), rows(6, 3)
    first, _, last = adapter.layers
    assert first.out_features == 4
    torch.testing.assert_close(adapter(guided), last(first(guided).relu()))
    adapter(guided).square().sum().backward()
    assert all(p.grad.any() for p in adapter.parameters())


def test_linear_identity_init():
    guided = rows(6, 3)
    torch.testing.assert_close(LinearAdapter(3, 3, init='identity')(guided), guided)
    with pytest.raises(ValueError, match=r"init='identity' .* 3 channels in, 4 out"):
        LinearAdapter(3, 4, init='identity')


def test_linear_refuses_what_it_cannot_bridge():
    with pytest.raises(ValueError, match=r'\(N, ..., 3\), found a guided layer \(6, 4\)'):
        LinearAdapter(3, 7)(rows(6, 4))
    with pytest.raises(ValueError, match=r'\(2, 5, 3\) and hint of size \(6,\)'):
        LinearAdapter(3, 7)(rows(2, 5, 3), (6,))
    with pytest.raises(ValueError, match=r'in_features .* found -1'):
        LinearAdapter(-1, 7)
    with pytest.raises(TypeError, match=r'num_layers .* found True'):
        LinearAdapter(3, 7, num_layers=True)


def test_identity_changes_the_size_only():
    adapter, guided = IdentityAdapter(3, 3), rows(1, 3, 4, 4)
    assert adapter(guided) is guided
    assert adapter(guided, (4, 4)) is guided
    assert torch.equal(adapter(guided, (5, 4))[..., :4, :], guided)
    assert adapter(rows(6, 3), ()).shape == (6, 3)
    assert IdentityAdapter(3, 3, resize='interpolate')(guided, (8, 8)).shape == (1, 3, 8, 8)
    assert not list(adapter.parameters())


def test_identity_refuses_other_channels_at_build_time():
    with pytest.raises(ValueError, match='guided layer of 64 channels and a hint of 256'):
        IdentityAdapter(64, 256)
    with pytest.raises(ValueError, match=r"resize .* found 'no'"):
        IdentityAdapter(3, 3, resize='no')
