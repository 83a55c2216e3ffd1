"""MGD: the teacher's feature made from a part of the student's (Yang et al. 2022)."""
import torch
from torch import Tensor, nn

from ..adapters.conv import ConvAdapter
from ..arguments import at_least_float32, comparable, fraction, non_negative, non_negative_int
from .features import channels_first, places


def mgd_loss(generated: Tensor, hint: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared distance of what was generated to the hint, summed over channels and places, for each image.

    Args:
        generated: (N, C, H, W), from the student's masked feature.
        hint: the same shape, detached.
        mask: bool (N, 1, H, W), True where features are compared.

    Returns:
        (N,), in float32 or float64.

    Raises:
        ValueError: shapes or devices that differ, a mask that is not bool or does not fit.

    Source: Yang et al., "Masked Generative Distillation", ECCV 2022, eq. 5.
    """
    comparable(generated=generated, hint=hint)
    mask = places(mask, generated)                                                     # (N, M)
    difference = channels_first(at_least_float32(generated) - at_least_float32(hint).detach())    # (C, N, M)
    if mask is not None:
        difference = difference.where(mask, 0.0)
    return difference.square().sum((0, 2))


def random_places(images: int, size: tuple[int, int], ratio: float, seed: int, draw: int = 0) -> Tensor:
    """bool (N, 1, H, W), True with probability 1 - ``ratio``: the ``draw``-th mask of ``seed``, on the CPU.

    It depends on the arguments alone: the global random state is neither read nor changed, every device gets the same
    places, and a resumed run goes on where it was.
    """
    # multiplied, so that seeds that lie together do not give the same masks one step later
    generator = torch.Generator('cpu').manual_seed((seed * 2654435761 + draw) % 2**32)
    return torch.rand(images, 1, *size, generator=generator, device='cpu') >= ratio


class MGDLoss(nn.Module):
    """Hide places of the student's feature, let a small network make the teacher's feature from the rest::

        L = loss_weight / N sum over images, channels and places of (G(V m) - Z)^2

    V is the guided feature, Z the hint, m one random mask of places for all channels, 1 with probability 1 - mask_ratio
    and drawn anew for every call, G a convolution 3x3, a ReLU and a convolution 3x3. A mean over images, for given
    masks. Pyramid levels are summed. In float32 under autocast too. The paper aligns channels by a 1x1 convolution only
    where they differ: ``adapter=None`` where they do not.

    One-stage detectors: ratio 0.65, weight 2e-5, 5 levels. Two-stage: ratio 0.45, weight 5e-7, 4 levels.

    Args:
        channels: of the teacher's layer.
        mask_ratio: share of the places that is hidden, in [0, 1).
        loss_weight: see above.
        seed: of the initial weights and of the masks. The global random state is neither read nor changed; how many
            masks were drawn is part of the ``state_dict``.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Yang et al., "Masked Generative Distillation", ECCV 2022, and its released configurations.
    """

    compares = 'features'
    needs_channels = True
    sum_levels = True

    def __init__(self, channels: int, mask_ratio: float = 0.65, loss_weight: float = 2e-5, seed: int = 0) -> None:
        super().__init__()
        self.mask_ratio = fraction('mask_ratio', mask_ratio)
        self.loss_weight = non_negative('loss_weight', loss_weight)
        self.seed = non_negative_int('seed', seed)
        self.draws = 0
        self.generator = ConvAdapter(channels, channels, kernel_size=3, num_layers=2, seed=seed)

    def forward(self, guided: Tensor, hint: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (N, C, H, W) of both sides -> a scalar."""
        comparable(guided=guided, hint=hint)
        if guided.dim() != 4:
            raise ValueError(f'MGD compares maps (N, C, H, W), found {tuple(guided.shape)}')
        seen = random_places(len(guided), tuple(guided.shape[2:]), self.mask_ratio, self.seed, self.draws)
        self.draws += 1
        seen = seen.to(guided.device)
        # what stands outside the mask must not reach the places inside through the convolutions
        seen = seen if mask is None else seen & places(mask, guided).view(seen.shape)
        with torch.autocast(guided.device.type, enabled=False):
            generated = self.generator(at_least_float32(guided).where(seen, 0.0))
        return self.loss_weight * mgd_loss(generated, hint, mask).sum() / max(len(guided), 1)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.draws)

    def set_extra_state(self, state: Tensor) -> None:
        self.draws = int(state)

    def extra_repr(self) -> str:
        return f'mask_ratio={self.mask_ratio}, loss_weight={self.loss_weight}, seed={self.seed}'
