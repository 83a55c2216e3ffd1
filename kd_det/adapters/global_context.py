"""Global context: what the whole map says, added to each of its places."""
import torch
from torch import Tensor, nn

from ..arguments import non_negative_int, positive_int
from .init import kaiming_, undisturbed_random_state


class GlobalContext(nn.Module):
    """The global-context block that FGD compares features through.

    With a learned weight of each place, and W1 (C -> C / ratio) and W2 (C / ratio -> C) with biases::

        context = sum over places of softmax(w . X_p + b) X_p                     (N, C)
        out     = X + W2 ReLU(LayerNorm(W1 context))                              added to every place

    W2 starts at 0, so the block starts as the identity.

    Args:
        channels: C.
        ratio: by which the hidden layer is narrower; it has at least one channel.
        seed: of the initial weights; the global random state is neither read nor changed.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Cao et al., "GCNet", 2019, fig. 4d; as used by Yang et al. 2022 (FGD), eq. 10.
    """

    def __init__(self, channels: int, ratio: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.channels = positive_int('channels', channels)
        hidden = max(channels // positive_int('ratio', ratio), 1)
        non_negative_int('seed', seed)
        with undisturbed_random_state():
            self.attention = nn.Linear(channels, 1)
            self.reduce = nn.Linear(channels, hidden)
            self.norm = nn.LayerNorm(hidden)
            self.expand = nn.Linear(hidden, channels)
        kaiming_([self.attention], seed)
        kaiming_([self.reduce, self.expand], seed)
        nn.init.zeros_(self.expand.weight)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if feature.dim() != 4 or feature.shape[1] != self.channels:
            raise ValueError(f'the global context was built for (N, {self.channels}, H, W), found '
                             f'{tuple(feature.shape)}')
        flat = feature.flatten(2)                                                      # (N, C, M)
        weight = (self.attention.weight @ flat + self.attention.bias).softmax(2)       # (N, 1, M)
        context = (flat @ weight.transpose(1, 2)).squeeze(2)                           # (N, C)
        change = self.expand(torch.relu(self.norm(self.reduce(context))))              # (N, C)
        return feature + change[:, :, None, None]

    def extra_repr(self) -> str:
        return f'channels={self.channels}'
