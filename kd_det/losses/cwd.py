"""CWD: where each channel looks, as a distribution over space (Shu et al. 2021)."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import at_least_float32, boolean, comparable, non_negative, positive
from .features import channels_first, places, standardised
from .recompute import recomputed


def cwd_loss(
    guided: Tensor,
    hint: Tensor,
    temperature: float = 1.0,
    standardise: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    r"""KL of each channel's softmax over space, for V the guided feature and Z the hint::

        p(X)_c = softmax over space of X_c / T
        L = T^2 / (C N) sum over images, channels and places of p(Z) log(p(Z) / p(V))

    A mean over images: four images are the mean of two and two, unless ``standardise`` is on, which depends on the
    batch.

    Args:
        guided: V, maps (N, C, H, W) or tokens (N, L, C), after its adapter.
        hint: Z, the same shape, detached.
        temperature: T > 0.
        standardise: bring both sides' channels to mean 0 and deviation 1 over the batch first, without learning
            anything.
        mask: bool, (N, 1, H, W) of maps, (N, L, 1) of tokens, True where features are compared; the softmax is over
            these places.

    Returns:
        A scalar, in float32 or float64. Backward needs the features only, as they came.

    Raises:
        ValueError: shapes or devices that differ, features without places, a mask that is not bool or does not fit.

    Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, eq. 2 to 4.
    """
    comparable(guided=guided, hint=hint)
    if guided.dim() < 3:
        raise ValueError(f'maps (N, C, H, W) or tokens (N, L, C) are needed, found {tuple(guided.shape)}: a softmax '
                         'over one place is always 1')
    mask = places(mask, guided)                                             # (N, M)
    ours, theirs = channels_first(guided), channels_first(hint.detach())    # (C, N, M)

    def log_prob(channels: Tensor) -> Tensor:
        channels = standardised(channels, mask) if standardise else at_least_float32(channels)
        channels = channels / temperature
        if mask is not None:
            channels = channels.where(mask, torch.finfo(channels.dtype).min)
        return F.log_softmax(channels, dim=2)

    def formula(ours: Tensor, theirs: Tensor) -> Tensor:
        student_log_prob, teacher_log_prob = log_prob(ours), log_prob(theirs)                # (c, N, M)
        terms = teacher_log_prob.exp() * (teacher_log_prob - student_log_prob)
        if mask is not None:
            terms = terms.where(mask, 0.0)
        return terms.sum((1, 2))

    channels = recomputed(formula, ours, theirs)                            # (C,)
    return temperature**2 * channels.sum() / max(ours.shape[0] * ours.shape[1], 1)


class CWDLoss(nn.Module):
    """:func:`cwd_loss`, weighted; its pyramid levels are summed.

    ======================================  ===========  ===========  ======  ======================
    where                                   temperature  standardise  weight
    ======================================  ===========  ===========  ======  ======================
    neck, MMRazor                           1            False        10
    class logit maps of GFL, MMRazor 0.x    1            False        5       GFL-R50 40.2 -> 41.9
    neck of RTMDet, MMYOLO                  1            True         1       stops 20 epochs early
    ======================================  ===========  ===========  ======  ======================

    Args:
        temperature: T.
        standardise: batch normalisation of both sides without parameters, before the softmax.
        loss_weight: see above.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source: Shu et al. 2021; the released configurations of MMRazor and MMYOLO.
    """

    compares = 'features'
    sum_levels = True

    def __init__(self, temperature: float = 1.0, standardise: bool = False, loss_weight: float = 10.0) -> None:
        super().__init__()
        self.temperature = positive('temperature', temperature)
        self.standardise = boolean('standardise', standardise)
        self.loss_weight = non_negative('loss_weight', loss_weight)

    def forward(self, guided: Tensor, hint: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features of one shape -> a scalar."""
        return self.loss_weight * cwd_loss(guided, hint, self.temperature, self.standardise, mask)

    def extra_repr(self) -> str:
        return f'temperature={self.temperature}, standardise={self.standardise}, loss_weight={self.loss_weight}'
