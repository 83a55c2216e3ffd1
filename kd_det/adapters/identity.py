"""The absent adapter: hints without adaptation."""
from torch import Tensor, nn

from ..arguments import one_of, positive_int
from .resize import RESIZE_MODES, match_size


class IdentityAdapter(nn.Module):
    """Compares the student's feature as it is; only its size may be adapted.

    Args:
        in_channels: of the student's guided layer.
        out_channels: of the teacher's hint layer; must be equal.
        resize: 'pad', 'interpolate' or 'none' (see ``match_size``).

    Raises:
        ValueError: channel counts that differ.

    Source: column "hints" of Chen et al. 2017, table 4.
    """

    def __init__(self, in_channels: int, out_channels: int, resize: str = 'pad') -> None:
        super().__init__()
        positive_int('in_channels', in_channels)
        positive_int('out_channels', out_channels)
        self.resize = one_of('resize', resize, RESIZE_MODES)
        if in_channels != out_channels:
            raise ValueError(
                f'IdentityAdapter cannot bridge a guided layer of {in_channels} channels and a '
                f'hint of {out_channels}; use ConvAdapter or LinearAdapter'
            )

    def forward(self, guided: Tensor, target_size: tuple[int, ...] | None = None) -> Tensor:
        """(N, C, h, w) -> (N, C, H, W); features without places, (N, C), pass with None or ()."""
        if not target_size:
            return guided
        return match_size(guided, target_size, self.resize)

    def extra_repr(self) -> str:
        return f'resize={self.resize!r}'
