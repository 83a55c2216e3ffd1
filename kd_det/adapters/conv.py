"""Convolutional adapter, for feature maps."""
import itertools
import math

from torch import Tensor, nn

from ..arguments import boolean, one_of, positive_int
from .init import INITS, chain, check_identity_init, initialise_, undisturbed_random_state
from .resize import RESIZE_MODES, match_size

NORMS = (None, 'BN', 'GN')


class ConvAdapter(nn.Module):
    """A convolution from the student's channels to the teacher's, stride 1.

    The paper's adaptation layer is one 1x1 convolution, useful even where the channel counts agree. With ``num_layers``
    > 1 each convolution but the last is followed by its norm, if any, and a ReLU; the last one's output is compared as
    it is, so it has neither.

    Args:
        in_channels: of the student's guided layer.
        out_channels: of the teacher's hint layer.
        kernel_size: odd; borders are padded so that sizes stay.
        num_layers: convolutions in a row.
        hidden_channels: between them; ``out_channels`` by default.
        resize: how a spatial mismatch is resolved, after the convolutions, so that padded places get zeros and not the
            bias: 'pad', 'interpolate' or 'none' (see ``match_size``).
        norm: None, 'BN' or 'GN', between layers.
        bias: of the convolutions.
        init: 'kaiming' (see ``init.py``), or 'identity', which starts as the plain hint does; the latter needs one
            layer and equal channel counts.
        seed: of the initial weights. The global random state is neither read nor changed, so two adapters of one shape
            and seed start equal.

    Raises:
        TypeError, ValueError: an argument out of range, a ``norm`` with nothing to normalise.

    Source: Chen et al. 2017, sec. 3.4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        num_layers: int = 1,
        hidden_channels: int | None = None,
        resize: str = 'pad',
        norm: str | None = None,
        bias: bool = True,
        init: str = 'kaiming',
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.in_channels = positive_int('in_channels', in_channels)
        self.out_channels = positive_int('out_channels', out_channels)
        if positive_int('kernel_size', kernel_size) % 2 == 0:
            raise ValueError(f'kernel_size must be odd to keep the size, found {kernel_size}')
        positive_int('num_layers', num_layers)
        self.resize = one_of('resize', resize, RESIZE_MODES)
        boolean('bias', bias)
        one_of('init', init, INITS)
        check_identity_init(init, num_layers, in_channels, out_channels)
        if one_of('norm', norm, NORMS) is not None and num_layers == 1:
            raise ValueError(
                f'norm={norm!r} goes between layers and needs num_layers >= 2, found num_layers=1'
            )
        hidden = out_channels if hidden_channels is None else hidden_channels
        positive_int('hidden_channels', hidden)

        widths = [in_channels, *[hidden] * (num_layers - 1), out_channels]
        with undisturbed_random_state():
            convs = [
                nn.Conv2d(n_in, n_out, kernel_size, padding=kernel_size // 2, bias=bias)
                for n_in, n_out in itertools.pairwise(widths)
            ]
            self.layers = chain(convs, lambda: [*_norm(norm, hidden), nn.ReLU(inplace=True)])
        initialise_(convs, init, seed)

    def forward(self, guided: Tensor, target_size: tuple[int, int] | None = None) -> Tensor:
        """(N, in_channels, h, w) -> (N, out_channels, H, W), ``target_size`` (H, W) the hint's."""
        if guided.dim() != 4 or guided.shape[1] != self.in_channels:
            raise ValueError(
                f'the adapter was built for (N, {self.in_channels}, h, w), '
                f'found a guided layer {tuple(guided.shape)}'
            )
        return match_size(self.layers(guided), target_size, self.resize)

    def extra_repr(self) -> str:
        return f'{self.in_channels} -> {self.out_channels}, resize={self.resize!r}'


def _norm(norm: str | None, channels: int) -> list[nn.Module]:
    if norm == 'BN':
        return [nn.BatchNorm2d(channels)]
    if norm == 'GN':
        return [nn.GroupNorm(math.gcd(32, channels), channels)]
    return []
