"""FGD: features weighted by objects and by the teacher's attention, and compared as a whole (Yang et al. 2022)."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..adapters.global_context import GlobalContext
from ..arguments import at_least_float32, comparable, non_negative, non_negative_int, on_device_of, positive
from .foreground import background_mask, foreground_mask
from .recompute import recomputed


def fgd_loss(
    guided: Tensor,
    hint: Tensor,
    foreground: Tensor,
    temperature: float = 0.5,
    alpha: float = 1e-3,
    beta: float = 5e-4,
    gamma: float = 5e-4,
) -> Tensor:
    r"""The focal part of FGD, for each image; V the guided feature, Z the hint, C channels, H W places::

        S(X)_p = H W softmax over places of (mean over channels of |X|) / T          spatial attention
        A(X)_c = C softmax over channels of (mean over places of |X|) / T            channel attention
        D_p    = S(Z)_p sum over channels of A(Z)_c (V_cp - Z_cp)^2
        L_n    = alpha sum over p of foreground_p D_p + beta sum over p of background_p D_p
                 + gamma (sum over p of |S(V)_p - S(Z)_p| + sum over c of |A(V)_c - A(Z)_c|)

    Args:
        guided: V, (N, C, H, W), after its adapter.
        hint: Z, the same shape, detached.
        foreground: (N, H, W), see :func:`foreground_mask`; where it is 0 is background.
        temperature: T > 0.
        alpha, beta, gamma: the weights of objects, background and attention.

    Returns:
        (N,), in float32 or float64. Backward needs the arguments only, as they came.

    Raises:
        ValueError: shapes or devices that differ, features that are not maps.

    Source: Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022, eq. 2 to 9.
    """
    comparable(guided=guided, hint=hint)
    if guided.dim() != 4:
        raise ValueError(f'FGD compares maps (N, C, H, W), found {tuple(guided.shape)}')
    if foreground.shape != (len(guided), *guided.shape[2:]):
        raise ValueError(f'foreground of shape {tuple(foreground.shape)} does not fit features of shape '
                         f'{tuple(guided.shape)}; (N, H, W) is expected')
    on_device_of(guided.device, foreground=foreground)

    def formula(ours: Tensor, theirs: Tensor, foreground: Tensor) -> Tensor:
        ours, theirs = at_least_float32(ours), at_least_float32(theirs)
        spatial, channel = _attention(ours, temperature)                                    # (n, H, W), (n, C)
        their_spatial, their_channel = _attention(theirs, temperature)
        distance = ((ours - theirs).square() * their_channel[:, :, None, None]).sum(1)      # (n, H, W)
        weight = alpha * foreground + beta * background_mask(foreground)                    # (n, H, W)
        attention = (spatial - their_spatial).abs().sum((1, 2)) + (channel - their_channel).abs().sum(1)  # (n,)
        return (weight * their_spatial * distance).sum((1, 2)) + gamma * attention

    return recomputed(formula, guided, hint.detach(), foreground.detach())


def _attention(feature: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(N, H, W), 1 on average over places, and (N, C), 1 on average over channels."""
    _, channels, height, width = feature.shape
    size = feature.abs()
    spatial = (size.mean(1).flatten(1) / temperature).softmax(1) * (height * width)
    channel = (size.mean((2, 3)) / temperature).softmax(1) * channels
    return spatial.view(-1, height, width), channel


class FGDLoss(nn.Module):
    """:func:`fgd_loss` and the squared distance of what a :class:`GlobalContext` makes of each side::

        L = loss_weight / N sum over images of [fgd_loss + lam |G_student(V) - G_teacher(Z)|^2]

    A mean over images: four images are the mean of two and two. Pyramid levels are summed. Both blocks are trained. In
    float32 under autocast too. The released code scales boxes by each image's own size and colours one cell too much at
    the right and at the bottom; here boxes lie on their objects in padded batches (:func:`foreground_mask`). Padding
    counts as background.

    ========================  ===========  ======  ======  ======  =====  ======
    detector                  temperature  alpha   beta    gamma   lam    levels
    ========================  ===========  ======  ======  ======  =====  ======
    RetinaNet, GFL (default)  0.5          1e-3    5e-4    5e-4    5e-6   5
    FCOS                      0.8          1.6e-3  8e-4    8e-4    8e-6   5
    RepPoints                 0.5          1.6e-3  8e-4    8e-4    8e-6   5
    Faster, Mask, Cascade     0.5          5e-5    2.5e-5  5e-5    5e-7   4
    ========================  ===========  ======  ======  ======  =====  ======

    The published runs clip gradients at norm 35.

    Args:
        channels: of the teacher's layer.
        temperature, alpha, beta, gamma: see :func:`fgd_loss`.
        lam: lambda, the weight of the global part.
        loss_weight: factor of the whole term.
        seed: of the blocks' initial weights; the global random state is neither read nor changed.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Yang et al. 2022, eq. 11, and its released configurations.
    """

    compares = 'features'
    needs_boxes = True
    needs_channels = True
    sum_levels = True

    def __init__(
        self,
        channels: int,
        temperature: float = 0.5,
        alpha: float = 1e-3,
        beta: float = 5e-4,
        gamma: float = 5e-4,
        lam: float = 5e-6,
        loss_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.temperature = positive('temperature', temperature)
        self.alpha, self.beta = non_negative('alpha', alpha), non_negative('beta', beta)
        self.gamma, self.lam = non_negative('gamma', gamma), non_negative('lam', lam)
        self.loss_weight = non_negative('loss_weight', loss_weight)
        non_negative_int('seed', seed)
        # of one seed: equal features start with equal contexts
        self.student_context, self.teacher_context = (GlobalContext(channels, seed=seed) for _ in range(2))

    def forward(self, guided: Tensor, hint: Tensor, boxes: Sequence[Tensor], canvas: tuple[int, int]) -> Tensor:
        """Maps (N, C, H, W) of both sides -> a scalar.

        ``boxes`` (G, 4) of each image, xyxy in pixels of the padded batch; ``canvas`` its (H, W).
        """
        comparable(guided=guided, hint=hint)
        if guided.dim() != 4:
            raise ValueError(f'FGD compares maps (N, C, H, W), found {tuple(guided.shape)}')
        if len(boxes) != len(guided):
            raise ValueError(f'boxes of {len(boxes)} images found for features of {len(guided)}')
        foreground = foreground_mask([box.to(guided.device) for box in boxes], tuple(guided.shape[2:]), canvas)
        foreground = foreground.to(guided.device)  # a batch without images has no boxes to say where
        focal = fgd_loss(guided, hint, foreground, self.temperature, self.alpha, self.beta, self.gamma)  # (N,)
        with torch.autocast(guided.device.type, enabled=False):
            ours = self.student_context(at_least_float32(guided))
            theirs = self.teacher_context(at_least_float32(hint.detach()))
        return self.loss_weight * (focal.sum() + self.lam * (ours - theirs).square().sum()) / max(len(guided), 1)

    def extra_repr(self) -> str:
        return (f'temperature={self.temperature}, alpha={self.alpha}, beta={self.beta}, gamma={self.gamma}, '
                f'lam={self.lam}, loss_weight={self.loss_weight}')
