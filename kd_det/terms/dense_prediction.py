"""What terms on whole dense predictions have in common: classes, boxes and the branch beside them."""
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..heads.dense_outputs import DenseOutputs, decoder_of, score_factor_name
from ..heads.dense_targets import DenseTargets
from ..losses.reduction import reduce_loss
from ..sources.mixture import known_only
from .compared import build_loss, is_off
from .dense import check_dense_pair, dense_head, hear_dense, known_classes, uses_sigmoid
from .step import Step
from .term import Term

FAR = 1e9
"""Pixels. No image is as large, and areas of boxes within are finite in float32, hulls of two too."""


class DensePrediction(Term):
    """A term of up to three parts, each with a loss of its own: the classes, the decoded boxes, and the branch beside
    the classes (centerness, IoU or objectness), prior by prior.

    Args:
        cls (dict | None): a loss on class logits. None or weight 0: off; without ``type`` the term's own.
        bbox (dict | None): an IoU loss on decoded boxes.
        score_factor (dict | None | 'auto'): a loss on the logits of the third branch. 'auto': where both heads have the
            same one.
        **term: see :class:`kd_det.terms.term.Term`.

    Attributes:
        tag: ends the names of its losses in the log.
        kinds: what the loss of each part has to compare.
        factor_is_of_positives: whether the third part is for the positives of the student's assigner alone, so that it
            is left out on images without labels.
        cls, bbox, score_factor: the losses; None where a part is off.
        factor_name: what the third branch estimates; None: there is none.
    """

    takes_several = True
    compares_classes = True
    tag: str
    factor_is_of_positives = True
    kinds: dict[str, str | tuple[str, ...]] = dict(cls='scores', bbox='decoded boxes', score_factor='scores')

    def __init__(self, cls: dict | str | None = 'auto', bbox: dict | str | None = 'auto',
                 score_factor: dict | str | None = 'auto', **term: Any) -> None:
        super().__init__(**term)
        self._cfgs = dict(cls=cls, bbox=bbox, score_factor=score_factor)
        for part, cfg in self._cfgs.items():
            if cfg is not None and cfg != 'auto' and not isinstance(cfg, dict):
                raise ConfigError(f'{self.key}.{part}: found {cfg!r}; a dict or None is expected')
        self.cls = self.bbox = self.score_factor = None
        self.factor_name: str | None = None

    @property
    def off(self) -> bool:
        return all(is_off(cfg) for cfg in self._cfgs.values())

    def defaults(self, use_sigmoid: bool) -> dict[str, dict]:
        """The losses of the method, by part, for heads that score with a sigmoid or with a softmax."""
        raise NotImplementedError

    # -- before training --------------------------------------------------------------------------------------------
    def check(self, student: nn.Module, source: Any) -> None:
        head, theirs = dense_head(student, 'model'), dense_head(source.model, f'{source.key}.config')
        decoder_of(head, 'bbox_head')
        decoder_of(theirs, f'{source.key}.config')
        check_dense_pair(self.key, student, source)
        factor, other = score_factor_name(head), score_factor_name(theirs)
        cfgs = dict(self._cfgs)
        if cfgs['score_factor'] == 'auto':
            cfgs['score_factor'] = {} if factor is not None and factor == other else None
        elif not is_off(cfgs['score_factor']) and (factor is None or factor != other):
            raise ConfigError(f'{self.key}.score_factor: the student\'s {type(head).__name__} has {factor}, the '
                              f'teacher\'s {type(theirs).__name__} {other}; score_factor=None leaves the term out')
        self.factor_name, self._sigmoid = factor, uses_sigmoid(head)
        for part, default in self.defaults(self._sigmoid).items():
            cfg = {} if cfgs[part] == 'auto' else cfgs[part]
            setattr(self, part, None if is_off(cfg) else build_loss(f'{self.key}.{part}', cfg, default,
                                                                    self.kinds[part]))
        if getattr(self.cls, 'use_sigmoid', self._sigmoid) != self._sigmoid:
            raise ConfigError(f'{self.key}.cls.use_sigmoid: {type(head).__name__} scores with a '
                              f'{"sigmoid" if self._sigmoid else "softmax"}; leave it out')
        self._check_classes(head, theirs, source)

    def _check_classes(self, head: nn.Module, theirs: nn.Module, source: Any) -> None:
        if self.cls is None:
            return
        ours, others = (uses_sigmoid(one) for one in (head, theirs))
        if known_classes(source, head.num_classes) != theirs.num_classes or ours != others:
            raise ConfigError(f'{self.key}.cls: the student scores {head.num_classes} classes with a '
                              f'{"sigmoid" if ours else "softmax"}, the teacher {theirs.num_classes} with a '
                              f'{"sigmoid" if others else "softmax"}; bbox_head.num_classes and '
                              'bbox_head.loss_cls.use_sigmoid must agree')

    def asks(self) -> tuple[str, ...]:
        return ('dense',)

    def names(self) -> list[str]:
        return [f'loss_{what}_{self.tag}{self.suffix}' for what, _ in self.parts()]

    def parts(self) -> list[tuple[str, nn.Module]]:
        """(name in the log, loss) of the parts that are on."""
        parts = (('cls', self.cls), ('bbox', self.bbox), (self.factor_name, self.score_factor))
        return [(name, loss) for name, loss in parts if loss is not None]

    @property
    def needs_labels(self) -> str:
        alone = self.factor_is_of_positives and self.cls is None and self.bbox is None
        return f'its {self.factor_name} part is of the positives of the student\'s assigner' if alone else ''

    def unlabelled_names(self) -> list[str]:
        return [f'loss_{what}_{self.tag}{self.suffix}' for what, loss in self.parts()
                if loss is not self.score_factor or not self.factor_is_of_positives]

    # -- the step ---------------------------------------------------------------------------------------------------
    def around(self, step: Step) -> None:
        hear_dense(step)

    def named(self, cls: Tensor | None, bbox: Tensor | None, factor: Tensor | None) -> dict[str, Tensor]:
        """The losses by their names in the log; None: off."""
        values = dict(cls=cls, bbox=bbox)
        return {f'loss_{what}_{self.tag}{self.suffix}': values.get(what, factor) for what, _ in self.parts()}

    def teacher_outputs(self, student: DenseOutputs, source: Any) -> DenseOutputs:
        """What the source says about the student's priors."""
        with torch.no_grad():
            teacher = source.dense_outputs()
        if student.logits.shape != teacher.logits.shape:
            raise RuntimeError(f'the student scores {tuple(student.logits.shape)} (images, priors, classes), the '
                               f'teacher {tuple(teacher.logits.shape)}; both need the same padding '
                               '(data_preprocessor.pad_size_divisor)')
        return teacher

    def compare_classes(self, student: Tensor, teacher: Tensor, known: Tensor | None, avg_factor: Tensor,
                        weight: Tensor | None = None) -> Tensor:
        """The class part over logits (N, P, C), weights (N, P), of the classes that the source speaks about."""
        ours, soft = (known_only(logits.flatten(0, 1), known, self._sigmoid) for logits in (student, teacher))
        weight = None if weight is None else weight.flatten()
        return self.cls(ours, soft, weight=weight, avg_factor=avg_factor)

    def compare_boxes(self, student: Tensor, teacher: Tensor, weight: Tensor, avg_factor: Tensor) -> Tensor:
        """The box part over boxes (n, 4), xyxy, and weights (n,). What is no box on one of both sides is left out:
        turned inside out, which RTMDet's distances can be, it has no IoU, and a loss on it falls without end; beyond
        ``FAR`` pixels, where exponentials of sizes (YOLOX, FCOS) run away, areas are not finite.
        """
        if not len(student):  # MMDetection's overlaps of nothing are off the graph, and DDP would miss the box branch
            return student.float().sum()
        usable = is_box(student) & is_box(teacher)  # (n,)
        student, teacher = (side.where(usable[:, None], 0.0) for side in (student, teacher))
        # given weights, MMDetection's IoU losses read whether one of them is above 0, which waits for the device
        each = self.bbox(student, teacher, reduction_override='none')  # (n,)
        return reduce_loss(each, weight * usable, 'mean', avg_factor)

    def compare_factors(self, student: DenseOutputs, teacher: DenseOutputs, targets: DenseTargets) -> Tensor:
        """The third part over logits (N, P), at the positives of ``targets`` and divided by their number."""
        return self.score_factor(student.factor.flatten(), teacher.factor.flatten(),
                                 weight=targets.positive.flatten().float(), avg_factor=targets.normaliser)


def is_box(corners: Tensor) -> Tensor:
    """(n,) bool: boxes (n, 4), xyxy, that are not turned inside out, and lie in the neighbourhood of an image."""
    return (corners[:, 2:] >= corners[:, :2]).all(1) & (corners.abs() <= FAR).all(1)
