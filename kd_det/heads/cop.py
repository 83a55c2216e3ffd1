"""Conditional objectness prediction (COP): a PAA head whose class scores are conditioned on objectness."""
import math

import torch
import torch.nn.functional as F
from mmcv.cnn import Scale
from torch import Tensor, nn

from .batched_paa import BatchedPAAHead

NUM_COEFFICIENTS = 9


class COPHead(BatchedPAAHead):
    r"""PAA with conditional objectness.

    A 3x3 convolution on the regression tower predicts nine coefficients per location. The score of
    class c is

    .. math:: p_c = \frac{1}{9} \sum_{k=1}^{9} \sigma(z_c) \, \sigma(o_k)

    with class logits z and coefficients o, trained by the focal loss on p. The IoU branch stays.

    What ``forward`` returns as class scores are the log-odds of p, so that losses, costs, prediction and
    distillation, which all apply a sigmoid, work on p without knowing of it. Log-odds are computed from
    logarithms, so nothing saturates.

    Arguments are :class:`BatchedPAAHead`'s.

    Raises:
        ValueError: more than one anchor per location: the coefficients belong to the location.

    Source: Nguyen et al., "Improving Object Detection by Label Assignment Distillation", WACV 2022.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.num_base_priors != 1:
            raise ValueError(f'{type(self).__name__}: anchor_generator gives {self.num_base_priors} anchors per '
                             'location; one is expected (one ratio, scales_per_octave=1)')
        self.cop = nn.Conv2d(self.feat_channels, NUM_COEFFICIENTS, 3, padding=1)

    def forward_single(self, x: Tensor, scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
        """Class log-odds (N, C, H, W), box deltas (N, 4, H, W) and IoU logits (N, 1, H, W) of one level."""
        classes = boxes = x
        for conv in self.cls_convs:
            classes = conv(classes)
        for conv in self.reg_convs:
            boxes = conv(boxes)
        scores = conditional_log_odds(self.atss_cls(classes), self.cop(boxes))
        return scores, scale(self.atss_reg(boxes)).float(), self.atss_centerness(boxes)


def conditional_log_odds(class_logits: Tensor, coefficients: Tensor) -> Tensor:
    r"""log(p / (1 - p)) with :math:`p_c = \sigma(z_c) \, m`, :math:`m = mean_k \sigma(o_k)`.

    With 1 - p = (1 - m) + m :math:`\sigma(-z_c)` both logarithms are sums of positive terms.

    Args:
        class_logits: z, (N, C, H, W).
        coefficients: o, (N, K, H, W).

    Returns:
        (N, C, H, W), float32 or wider.
    """
    dtype = torch.promote_types(class_logits.dtype, torch.float32)
    z, o = class_logits.to(dtype), coefficients.to(dtype)
    count = math.log(o.shape[1])
    present = F.logsigmoid(o).logsumexp(1, keepdim=True) - count  # (N, 1, H, W), log m
    absent = F.logsigmoid(-o).logsumexp(1, keepdim=True) - count  # (N, 1, H, W), log(1 - m)
    return F.logsigmoid(z) + present - torch.logaddexp(absent, present + F.logsigmoid(-z))
