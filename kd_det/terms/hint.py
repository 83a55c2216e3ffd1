"""Hints: pick a feature on both sides, adapt the student's, compare."""
import inspect
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..arguments import boolean
from ..build import build, checked
from ..errors import ConfigError
from ..sources.layers import box_heads, check_path, part_of
from .compared import build_loss, is_off
from .constants import PREDICTORS, constants_for
from .finer_levels import finer_maps, resampled
from .levels import image_mask, pair_levels, token_mask
from .step import Step
from .term import Term


class Hint(Term):
    """gamma * (1 / L) * sum over L paired levels of loss(adapter_l(student_l), teacher_l).

    One adapter and one equal share per level (a loss with ``sum_levels``, whose paper adds levels up, is not divided by
    L); levels are paired by stride. Places that are padding, in a batch of images of different sizes, are left out
    where the loss takes a ``mask``: cells of maps, and tokens of a transformer's encoder.

    Args:
        layer (str): module path in the student, e.g. ``'neck'``, ``'backbone.layer3'``, ``'rpn_head.rpn_conv'``,
            ``'encoder.layers.0'``. What the layer returns is compared, also where an activation behind it works in
            place.
        teacher_layer (str | None): the same path by default.
        adapter (dict | None): ``ConvAdapter`` for maps by default, ``LinearAdapter`` for vectors and tokens; None
            compares as it is. The channel counts are filled in.
        loss (dict): ``HintLoss`` by default; its ``loss_weight`` is gamma. What is not given of PKD, CWD, FGD or MGD on
            the neck, or of CWD on a dense head's class logits (``'bbox_head.gfl_cls'``), is published for the student's
            kind, see :mod:`kd_det.terms.constants`; the plan prints it.
        levels (list[int] | None): levels of the student's layer that take part; None: all. Not given: the published
            ones of such a loss, all of any other.
        finer_levels (bool): teacher levels without a partner that are finer than all of the student's teach too: each
            is averaged onto the student's finest level (:func:`kd_det.terms.finer_levels.resampled`) and counts as one
            more pair, with an adapter of its own. A student at half its teacher's resolution learns so from the level
            where its teacher finds small objects.
        **term: see :class:`kd_det.terms.term.Term`.

    Raises:
        ConfigError: no two levels fit together, or an adapter cannot bridge a pair (both shapes are printed); the
            student's layer is frozen.

    Source: Chen et al. 2017, section 3.4.
    """

    takes_several = True

    def __init__(self, layer: str, teacher_layer: str | None = None, adapter: dict | str | None = 'default',
                 loss: dict | None = None, levels: list[int] | str | None = 'default', finer_levels: bool = False,
                 **term: Any) -> None:
        super().__init__(**term)
        self.finer_levels = checked(f'{self.key}.finer_levels', boolean, finer_levels)
        self.layer, self.teacher_layer = layer, teacher_layer or layer
        if adapter is not None and adapter != 'default' and not isinstance(adapter, dict):
            raise ConfigError(f'{self.key}.adapter: found {adapter!r}; a dict is expected, or None')
        self._adapter_cfg, self._loss_cfg, self._wanted = adapter, {} if loss is None else loss, levels
        if not isinstance(self._loss_cfg, dict):
            raise ConfigError(f'{self.key}.loss: found {loss!r}; a dict is expected, dict(type=\'HintLoss\', ...)')
        # channels of class logits are classes, as long as no adapter mixes them
        self.compares_classes = layer in PREDICTORS and adapter is None
        self._filled: list[str] = []  # what the table of constants gave, for the plan
        self.adapters = nn.ModuleList()
        self.pairs: list[tuple[int, int]] = []
        self.finer: list[tuple[int, int]] = []
        self._losses = nn.ModuleList()

    @property
    def off(self) -> bool:
        return is_off(self._loss_cfg)

    def layers(self) -> tuple[tuple[str], tuple[str]]:
        return (self.layer,), (self.teacher_layer,)

    def asks(self) -> tuple[str, ...]:
        return (self.teacher_layer, 'rcnn') if part_of(self.teacher_layer) == 'roi_head' else (self.teacher_layer,)

    def names(self) -> list[str]:
        return ['loss_hint_' + self.layer.replace('.', '_') + self.suffix]

    # -- before training --------------------------------------------------------------------------------------------
    def check(self, student: nn.Module, source: Any) -> None:
        check_path(f'{self.key}.layer', student, self.layer)
        check_path(f'{self.key}.teacher_layer', source.model, self.teacher_layer)
        if part_of(self.teacher_layer) == 'roi_head' and hasattr(student, 'roi_head'):
            ours, theirs = (len(box_heads(model)) for model in (student, source.model))
            if ours != theirs:
                raise ConfigError(f'{self.key}.teacher_layer: {self.teacher_layer!r} answers for the RoIs of each '
                                  f'R-CNN stage, and the student has {ours} of them, the teacher {theirs}; name a '
                                  'layer before the RoI head (backbone, neck, rpn_head)')

    def connect(self, student: nn.Module, source: Any) -> None:
        ours, theirs = student.layer_shapes[self.layer].levels, source.shapes[self.teacher_layer].levels
        for name, shapes in ((self.layer, ours), (self.teacher_layer, theirs)):
            if not shapes or not all(len(shape) in (2, 3, 4) for shape in shapes):
                raise ConfigError(f'{self.key}: layer {name!r} gives {shapes}; feature maps (N, C, H, W), tokens '
                                  '(N, L, C) or vectors (N, C) are expected')
        self.student_shapes, self.teacher_shapes = ours, theirs
        self._take_constants(student, [i for i, _ in pair_levels(ours, theirs)])
        self.pairs = self._checked_levels(pair_levels(ours, theirs))
        self.finer = self._finer_pairs() if self.finer_levels else []
        self.pairs = self.pairs + self.finer
        if not self.pairs:
            raise ConfigError(f'{self.key}: no level of {self.layer!r} (student, {ours}) has the relative stride of '
                              f'one of {self.teacher_layer!r} (teacher, {theirs}); name layers that correspond')
        for i, j in self.pairs:
            self.adapters.append(self._bridge(i, j))
            self._losses.append(self._loss_of(theirs[j]))
            if getattr(self._losses[-1], 'needs_boxes', False):
                self.needs_labels = 'its masks are boxes of objects'

    def _finer_pairs(self) -> list[tuple[int, int]]:
        ours, theirs = self.student_shapes, self.teacher_shapes
        found = finer_maps(self.key, ours, theirs, pair_levels(ours, theirs))
        if self._wanted is not None and found[0][0] not in self._wanted:
            raise ConfigError(f'{self.key}.finer_levels: they teach the student\'s finest level, {found[0][0]}, and '
                              f'levels={self._wanted!r} leaves it out; name it, or leave finer_levels out')
        return found

    def _compared_size(self, i: int, j: int, ours: tuple, theirs: tuple) -> tuple:
        """What level i is adapted to: the teacher's size, or its own, onto which a finer level is averaged."""
        return _size(ours if (i, j) in self.finer else theirs)

    def _take_constants(self, student: nn.Module, paired: list[int]) -> None:
        found = constants_for(self.key, self._loss_cfg, self.layer, student)
        levels = []
        if self._wanted == 'default':
            count = found.levels if found else None
            self._wanted = None if count is None else [i for i in paired if i < count]
            levels = [] if count is None else [f'levels={self._wanted}']
        if found is None:
            return
        missing = {name: value for name, value in found.loss.items() if name not in self._loss_cfg}
        self._loss_cfg = {**self._loss_cfg, **missing}
        filled = [f'{name}={value}' for name, value in missing.items()] + levels
        if filled:
            self._filled = [f'    not given, as published for {found.of}: {", ".join(filled)}']

    def _checked_levels(self, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        if self._wanted is None:
            return pairs
        known = [i for i, _ in pairs]
        if not isinstance(self._wanted, (list, tuple)) or not set(self._wanted) <= set(known):
            raise ConfigError(f'{self.key}.levels: found {self._wanted!r}; levels of {self.layer!r} with a partner are '
                              f'{known}')
        return [pair for pair in pairs if pair[0] in self._wanted]

    def _bridge(self, i: int, j: int) -> nn.Module:
        ours, theirs = self.student_shapes[i], self.teacher_shapes[j]
        maps = len(ours) == 4
        cfg = dict(type='IdentityAdapter') if self._adapter_cfg is None else self._adapter_cfg
        default = 'ConvAdapter' if maps else 'LinearAdapter'
        channel = 1 if maps else -1
        try:
            adapter = build(f'{self.key}.adapter', {} if cfg == 'default' else cfg, MODELS, default,
                            in_channels=ours[channel], out_channels=theirs[channel], in_features=ours[channel],
                            out_features=theirs[channel])
            # try the shapes now, so that what cannot be resized fails before training
            with torch.no_grad():
                training = adapter.training
                adapter.eval()(torch.zeros(ours), target_size=self._compared_size(i, j, ours, theirs))
                adapter.train(training)
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, ConfigError) and 'unknown keys' in str(error):
                raise
            raise ConfigError(f'{self.key}.adapter: {cfg} cannot bridge student {self.layer!r} level {i} {ours} to '
                              f'teacher {self.teacher_layer!r} level {j} {theirs}: {error}') from error
        return adapter

    def _loss_of(self, shape: tuple) -> nn.Module:
        if len(self._losses) and not getattr(self._losses[0], 'needs_channels', False):
            return self._losses[0]  # one loss for all levels, unless it learns something
        channels = shape[1] if len(shape) == 4 else shape[-1]
        return build_loss(f'{self.key}.loss', self._loss_cfg, 'HintLoss', 'features', channels=channels)

    @property
    def loss(self) -> nn.Module:
        """The loss of the first pair of levels."""
        return self._losses[0]

    # -- the step ---------------------------------------------------------------------------------------------------
    def around(self, step: Step) -> None:
        if part_of(self.teacher_layer) == 'roi_head':
            step.hear_rcnn()
        if self._has_cells:
            step.hear_feature_sizes()

    @property
    def _has_cells(self) -> bool:
        """Whether it compares an encoder's tokens, which are the cells of the maps behind the neck."""
        return part_of(self.layer) == 'encoder'

    def losses(self, step: Step) -> dict[str, Tensor]:
        ours = step.layer(self.layer)
        if not ours:  # a stage that the student's cascade did not reach: no RoI was left
            return {self.names()[0]: sum((p.sum() for p in self.parameters()), step.inputs.new_zeros(())) * 0.0}
        theirs = step.source(self.source).layer(self.teacher_layer)
        total = sum(self._compare(loss, *self.compared(k, ours, theirs), step) for k, loss in enumerate(self._losses))
        shares = 1 if getattr(self.loss, 'sum_levels', False) else len(self.pairs)
        return {self.names()[0]: total / shares}

    def compared(self, k: int, ours: list[Tensor], theirs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The student's feature behind its adapter and the hint, of pair k of :attr:`pairs`.

        Args:
            ours, theirs: the two layers' outputs, per level.
        """
        i, j = self.pairs[k]
        size = self._compared_size(i, j, tuple(ours[i].shape), tuple(theirs[j].shape))
        hint = resampled(theirs[j], size) if (i, j) in self.finer else theirs[j]
        return self.adapters[k](ours[i], target_size=size), hint

    def _compare(self, loss: nn.Module, guided: Tensor, hint: Tensor, step: Step) -> Tensor:
        hint = hint.detach()
        canvas = tuple(step.inputs.shape[-2:])
        if getattr(loss, 'needs_boxes', False):
            boxes = [sample.gt_instances.bboxes for sample in step.samples]
            boxes = [getattr(box, 'tensor', box) for box in boxes]
            return loss(guided, hint, boxes=boxes, canvas=canvas)
        if 'mask' not in inspect.signature(loss.forward).parameters:
            return loss(guided, hint)
        mask = None
        if guided.dim() == 4:
            mask = image_mask(step.samples, canvas, tuple(guided.shape[-2:]))
        elif guided.dim() == 3 and self._has_cells:
            mask = token_mask(step.samples, canvas, step.feature_sizes(), guided.shape[1])
        return loss(guided, hint, mask=None if mask is None else mask.to(guided.device))

    def examine(self, step: Step) -> None:
        """A hint whose guided feature has no gradient trains only its adapter, and its loss falls all the same."""
        ours = step.layer(self.layer)
        if ours and not any(level.requires_grad for level in ours):
            raise ConfigError(f'{self.key}.layer: nothing that trains lies before or in the student\'s {self.layer!r} '
                              '(frozen_stages, requires_grad=False, or a block with with_cp=True that hides its '
                              'inside); the hint would train its adapter alone. Name a layer that trains')

    def describe(self) -> list[str]:
        lines = [f'hint {self.layer} <- {self.source} {self.teacher_layer}, {type(self.loss).__name__} '
                 f'({self.loss.extra_repr()})' + _after(self.schedule.describe())]
        lines += self._filled
        for adapter, (i, j) in zip(self.adapters, self.pairs):
            averaged = ', averaged onto it,' if (i, j) in self.finer else ''
            lines.append(f'    student level {i} {self.student_shapes[i][1:]} <- teacher level {j} '
                         f'{self.teacher_shapes[j][1:]}{averaged} through {type(adapter).__name__}')
        for name, shapes, side in (('student', self.student_shapes, 0), ('teacher', self.teacher_shapes, 1)):
            alone = [k for k in range(len(shapes)) if k not in [pair[side] for pair in self.pairs]]
            if alone:
                lines.append(f'    {name} levels {alone} have no partner, or are not named, and take no part')
        return lines


def _size(shape: tuple) -> tuple:
    """What an adapter may resize: (h, w) of a map, (L,) of tokens, () of vectors."""
    return tuple(shape[2:]) if len(shape) == 4 else tuple(shape[1:-1])


def _after(text: str) -> str:
    return f', {text}' if text else ''
