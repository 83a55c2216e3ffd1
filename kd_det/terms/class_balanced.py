"""Class-balanced distillation: features of foreground RoIs by their cosine (Iscen et al. 2021)."""
import math
from typing import Any

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor, nn

from ..errors import ConfigError
from ..sources.layers import box_heads, part_of
from .hint import Hint
from .places import places_of_all
from .step import Step


class ClassBalancedDistillation(Hint):
    """On the RoIs that the student samples as objects::

        L_cls = (1 - alpha) CE + alpha beta / F * sum over foreground RoIs of (1 - cos(f_s, f_t))

    F is their number, averaged over ranks: a foreground RoI counts the same on each of them, and four images are two
    and two (L F = L' F' + L'' F''). In a cascade the layer names the stage, whose CE alone is weighed, and both are
    multiplied by the stage's weight.

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

    needs_labels = 'features are compared at the RoIs that it makes foreground'

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

    def connect(self, student: nn.Module, source: Any) -> None:
        for name, path, found in (('layer', self.layer, student.layer_shapes), ('teacher_layer', self.teacher_layer,
                                                                                source.shapes)):
            if any(len(shape) != 2 for shape in found[path].levels):
                raise ConfigError(f'{self.key}.{name}: {path!r} gives {found[path].levels}; the cosine is of one '
                                  'vector a RoI, (R, C), as fully connected layers give it')
        super().connect(student, source)

    def names(self) -> list[str]:
        return ['loss_cbd' + self.suffix]

    def _stage(self, level: int) -> int:
        """The R-CNN stage that gives a level of the layer: a cascade's box head names it, what all stages share gives
        one level for each.
        """
        named = [part for part in self.layer.split('.')[2:3] if part.isdigit()]  # 'roi_head.bbox_head.1.shared_fcs'
        return int(named[0]) if named else level

    def adjust(self, step: Step, losses: dict[str, Any], factor: float) -> None:
        cascade = len(box_heads(step.student)) > 1
        for stage in {self._stage(i) for i, _ in self.pairs}:
            name = f's{stage}.loss_cls' if cascade else 'loss_cls'
            if name in losses:
                losses[name] = losses[name] * (1 - factor * self.alpha)

    def losses(self, step: Step) -> dict[str, Tensor]:
        ours = step.layer(self.layer)
        places = [self._foreground(step, i) if ours else None for i, _ in self.pairs]
        counts = step.inputs.new_tensor([0 if rows is None else len(rows) for rows in places], dtype=torch.float32)
        counts = reduce_mean(counts).clamp(min=1 / get_world_size())  # asked by every rank, its cascade ended or not
        if not ours:
            return super().losses(step)
        theirs = step.source(self.source).layer(self.teacher_layer)
        scales = getattr(step.student.roi_head, 'stage_loss_weights', None)  # the classes' loss is weighed by it too
        total = 0
        for loss, adapter, (i, j), rows, count in zip(self._losses, self.adapters, self.pairs, places, counts):
            compared = loss(adapter(ours[i][rows], target_size=()), theirs[j][rows].detach(), avg_factor=count)
            total = total + (1.0 if scales is None else scales[self._stage(i)]) * compared
        return {self.names()[0]: total / len(self.pairs)}

    def _foreground(self, step: Step, level: int) -> Tensor:
        """Places (F,) of the RoIs that have an object, among those of a level's stage."""
        stage = self._stage(level)
        labels = step.rcnn_call(stage)['result']['bbox_targets'][0]  # (R,)
        return places_of_all((labels >= 0) & (labels < box_heads(step.student)[stage].num_classes))[0]
