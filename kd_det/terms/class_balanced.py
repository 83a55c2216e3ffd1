"""Class-balanced distillation: features of foreground RoIs by their cosine (Iscen et al. 2021)."""
import math
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..sources.layers import box_heads, part_of
from .hint import Hint
from .step import Step


class ClassBalancedDistillation(Hint):
    """On the RoIs that the student samples as objects::

        L_cls = (1 - alpha) CE + alpha beta mean over foreground RoIs of (1 - cos(f_s, f_t))

    f_t is a teacher's feature of the same RoI, or those of several teachers one after the other (an ensemble as
    ``source``); f_s goes through a linear layer to their length. The paper trains the student with class-balanced
    sampling (MMDetection's ``ClassBalancedDataset``) under teachers of plain sampling: these have the better features,
    balanced sampling the better classifier. The paper classifies images; foreground RoIs are ours.

    Args:
        layer (str): of the box head, one call a stage with a row for each RoI.
        alpha (float): 0.4 in the paper, in [0, 1]; 0: plain training.
        beta (float): 100 in the paper.
        **hint: ``teacher_layer``, ``adapter``, and what every term has.

    Raises:
        ConfigError: a layer outside the box head, values that cannot be meant.

    Source: Iscen et al., BMVC 2021 (arXiv 2104.05279), eq. 3 and 4.
    """

    needs_labels = True

    def __init__(self, layer: str = 'roi_head.bbox_head.shared_fcs.1', alpha: float = 0.4, beta: float = 100.0,
                 **hint: Any) -> None:
        key = hint.get('key', 'terms[0]')
        for name, value, most in (('alpha', alpha, 1.0), ('beta', beta, math.inf)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most \
                    or value == math.inf:
                raise ConfigError(f'{key}.{name}: found {value!r}; a number of at least 0'
                                  + (' and at most 1 is expected' if most == 1 else ' is expected'))
        if 'loss' in hint:
            raise ConfigError(f'{key}.loss: it is the cosine, weighted by alpha beta; leave it out')
        super().__init__(layer, loss=dict(type='CosineLoss', loss_weight=float(alpha * beta)), **hint)
        self.alpha = float(alpha)

    def check(self, student: nn.Module, source: Any) -> None:
        for name, path in (('layer', self.layer), ('teacher_layer', self.teacher_layer)):
            if part_of(path) != 'roi_head':
                raise ConfigError(f'{self.key}.{name}: found {path!r}; a layer of roi_head.bbox_head is expected, '
                                  'whose rows are RoIs')
        super().check(student, source)

    def names(self) -> list[str]:
        return ['loss_cbd' + self.suffix]

    def adjust(self, step: Step, losses: dict[str, Any], factor: float) -> None:
        stages = len(box_heads(step.student))
        for name in ['loss_cls'] if stages == 1 else [f's{i}.loss_cls' for i in range(stages)]:
            if name in losses:
                losses[name] = losses[name] * (1 - factor * self.alpha)

    def losses(self, step: Step) -> dict[str, Tensor]:
        ours = step.layer(self.layer)
        if not ours:
            return super().losses(step)
        theirs = step.source(self.source).layer(self.teacher_layer)
        total = 0
        for loss, adapter, (i, j) in zip(self._losses, self.adapters, self.pairs):
            call = step.rcnn_call(i if len(box_heads(step.student)) > 1 else 0)
            labels = call['result']['bbox_targets'][0]
            classes = box_heads(step.student)[0].num_classes
            foreground = ((labels >= 0) & (labels < classes)).nonzero().flatten()  # (F,)
            total = total + loss(adapter(ours[i][foreground], target_size=()), theirs[j][foreground].detach())
        return {self.names()[0]: total / len(self.pairs)}
