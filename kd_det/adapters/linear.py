"""Linear adapter, for the features of fully connected layers and tokens."""
import itertools

from torch import Tensor, nn

from ..arguments import boolean, one_of, positive_int
from .init import INITS, chain, check_identity_init, initialise_, undisturbed_random_state


class LinearAdapter(nn.Module):
    """A linear layer from the student's features to the teacher's, on the last dimension.

    With ``num_layers`` > 1 there is a ReLU between layers, none at the end.

    Args:
        in_features: of the student's guided layer.
        out_features: of the teacher's hint layer.
        num_layers: linear layers in a row.
        hidden_features: between them; ``out_features`` by default.
        bias: of the linear layers.
        init: 'kaiming' or 'identity', as in ``ConvAdapter``.
        seed: of the initial weights; the global random state is neither read nor changed.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Chen et al. 2017, sec. 3.4.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_layers: int = 1,
        hidden_features: int | None = None,
        bias: bool = True,
        init: str = 'kaiming',
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.in_features = positive_int('in_features', in_features)
        self.out_features = positive_int('out_features', out_features)
        positive_int('num_layers', num_layers)
        boolean('bias', bias)
        one_of('init', init, INITS)
        check_identity_init(init, num_layers, in_features, out_features)
        hidden = out_features if hidden_features is None else hidden_features
        positive_int('hidden_features', hidden)

        widths = [in_features, *[hidden] * (num_layers - 1), out_features]
        with undisturbed_random_state():
            linears = [
                nn.Linear(n_in, n_out, bias=bias)
                for n_in, n_out in itertools.pairwise(widths)
            ]
            self.layers = chain(linears, lambda: [nn.ReLU(inplace=True)])
        initialise_(linears, init, seed)

    def forward(self, guided: Tensor, target_size: tuple[int, ...] | None = None) -> Tensor:
        """(N, ..., in_features) -> (N, ..., out_features).

        ``target_size`` is the hint's ``shape[1:-1]``: () for (N, C), (L,) for tokens (N, L, C). There is no way to
        resize rows, so it has to be the guided layer's.
        """
        if guided.dim() < 2 or guided.shape[-1] != self.in_features:
            raise ValueError(
                f'the adapter was built for (N, ..., {self.in_features}), '
                f'found a guided layer {tuple(guided.shape)}'
            )
        if target_size is not None and tuple(target_size) != tuple(guided.shape[1:-1]):
            raise ValueError(
                f'guided layer {tuple(guided.shape)} and hint of size {tuple(target_size)} '
                'between the first and the last dimension differ; linear features are not resized'
            )
        return self.layers(guided)

    def extra_repr(self) -> str:
        return f'{self.in_features} -> {self.out_features}'
