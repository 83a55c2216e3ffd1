"""Hints: pick a feature on both sides, adapt the student's, compare."""
from collections.abc import Iterable

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from .errors import ConfigError

HINT_KEYS = {'layer', 'teacher_layer', 'adapter', 'loss'}


def flatten_levels(outputs: Iterable) -> list[Tensor]:
    """The tensors of one layer, in order: one per pyramid level, from one call or from one call per level."""
    levels: list[Tensor] = []
    for output in outputs:
        levels.extend(flatten_levels(output) if isinstance(output, (list, tuple)) else [output])
    return levels


def pair_levels(student: list[tuple], teacher: list[tuple], scale_factor: int) -> list[tuple[int, int]]:
    """Which student level is compared with which teacher level.

    Args:
        student, teacher: shapes, (N, C, H, W) for maps, (N, C) for vectors, taken from images whose sides are in the
            ratio 1 : ``scale_factor``.
        scale_factor: 1 pairs equally long lists by position. Otherwise, or if the lengths differ, levels of equal size
            (that is, of equal stride relative to their own image) are partners: teacher P3 with student P2 at factor 2.

    Returns:
        list[tuple[int, int]]: (student level, teacher level); levels without a partner do not appear.
    """
    if len(student) == len(teacher) and (scale_factor == 1 or all(len(s) == 2 for s in student)):
        return [(i, i) for i in range(len(student))]
    pairs = []
    for i, shape in enumerate(student):
        partners = [j for j, other in enumerate(teacher) if other[2:] == shape[2:] and len(other) == len(shape)]
        if len(partners) == 1:
            pairs.append((i, partners[0]))
    return pairs


class Hint(nn.Module):
    """gamma * (1 / L) * sum over L paired levels of loss(adapter_l(student_l), teacher_l).

    One adapter and one equal share per level. Places that are padding, in a batch of images of different sizes, are
    compared like all others.

    Args:
        layer (str): module path in the student, e.g. ``'neck'``, ``'backbone.layer3'``, ``'rpn_head.rpn_conv'``.
        student_shapes, teacher_shapes (list[tuple]): what the two layers return for a test image, see
            :func:`pair_levels`.
        scale_factor (int): teacher's image side over the student's.
        teacher_layer (str | None): the same path by default.
        adapter (dict | None): ``ConvAdapter`` by default (``LinearAdapter`` for vectors); None compares as it is. The
            channel counts are filled in.
        loss (dict | None): ``HintLoss`` by default; its ``loss_weight`` is gamma.
        key (str): the config key, for messages.

    Raises:
        ConfigError: no two levels fit together, or an adapter cannot bridge a pair; both shapes are printed.

    Source: Chen et al. 2017, section 3.4.
    """

    def __init__(self, layer: str, student_shapes: list[tuple], teacher_shapes: list[tuple], scale_factor: int = 1,
                 teacher_layer: str | None = None, adapter: dict | str | None = 'default', loss: dict | None = None,
                 key: str = 'hints[0]') -> None:
        super().__init__()
        self.layer, self.teacher_layer = layer, teacher_layer or layer
        self.student_shapes, self.teacher_shapes = student_shapes, teacher_shapes
        self.pairs = pair_levels(student_shapes, teacher_shapes, scale_factor)
        if not self.pairs:
            raise ConfigError(f'{key}: no level of {layer!r} (student, {student_shapes}) has the relative stride of one '
                              f'of {self.teacher_layer!r} (teacher, {teacher_shapes}); name layers that correspond')
        if adapter == 'default':
            adapter = dict(type='ConvAdapter' if len(student_shapes[0]) == 4 else 'LinearAdapter')
        adapters = []
        for i, j in self.pairs:
            try:
                adapters.append(self._adapter(adapter or dict(type='IdentityAdapter'), student_shapes[i],
                                              teacher_shapes[j]))
            except (TypeError, ValueError) as error:
                raise ConfigError(f'{key}.adapter: {adapter} cannot bridge student {layer!r} level {i} '
                                  f'{student_shapes[i]} to teacher {self.teacher_layer!r} level {j} '
                                  f'{teacher_shapes[j]}: {error}') from error
        self.adapters = nn.ModuleList(adapters)
        self.loss = MODELS.build(loss or dict(type='HintLoss'))

    @staticmethod
    def _adapter(cfg: dict, student: tuple, teacher: tuple) -> nn.Module:
        widths = ('in_features', 'out_features') if cfg['type'] == 'LinearAdapter' else ('in_channels', 'out_channels')
        channel = -1 if cfg['type'] == 'LinearAdapter' else 1
        adapter = MODELS.build({**cfg, widths[0]: student[channel], widths[1]: teacher[channel]})
        # try the shapes now, so that what cannot be resized fails before training
        with torch.no_grad():
            training = adapter.training
            adapter.eval()(torch.zeros(student), target_size=tuple(teacher[2:]))
            adapter.train(training)
        return adapter

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """Levels of both layers, in the order seen at build time; a scalar."""
        if len(student) != len(self.student_shapes) or len(teacher) != len(self.teacher_shapes):
            raise RuntimeError(f'hint {self.layer!r}: {len(student)} student and {len(teacher)} teacher levels, '
                               f'{len(self.student_shapes)} and {len(self.teacher_shapes)} when it was built')
        total = sum(self.loss(adapter(student[i], target_size=tuple(teacher[j].shape[2:])), teacher[j])
                    for adapter, (i, j) in zip(self.adapters, self.pairs))
        return total / len(self.pairs)

    def describe(self) -> list[str]:
        """Lines of the distillation plan."""
        lines = [f'hint {self.layer} <- teacher {self.teacher_layer}, {type(self.loss).__name__} '
                 f'({self.loss.extra_repr()})']
        for adapter, (i, j) in zip(self.adapters, self.pairs):
            lines.append(f'    student level {i} {self.student_shapes[i][1:]} <- teacher level {j} '
                         f'{self.teacher_shapes[j][1:]} through {type(adapter).__name__}')
        for name, shapes, side in (('student', self.student_shapes, 0), ('teacher', self.teacher_shapes, 1)):
            alone = [k for k in range(len(shapes)) if k not in [pair[side] for pair in self.pairs]]
            if alone:
                lines.append(f'    {name} levels {alone} have no partner and take no part')
        return lines
