"""Soft-label distillation of dense heads (the baseline of Nguyen et al. 2022, and SoLAD's second part)."""
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ..errors import ConfigError
from ..tap import tap_layer
from .dense_outputs import DenseOutputs, decoder_of, score_factor_name, training_format
from .distiller import DistillerMixin

TERM_KEYS = {'cls', 'bbox', 'score_factor', 'min_iou'}


class SoftLabelTerms(nn.Module):
    """The teacher's dense predictions as targets::

        m_i    = max over ground truths of IoU(teacher's box i, ground truth)
        S      = {i : m_i > min_iou},   Z = sum of m_i over S (mean over ranks; at least N images, which is ours)
        L_cls  = w_cls / Z * sum over all priors and classes of FocalKL(student, teacher)
        L_bbox = w_box / Z * sum over S of m_i * GIoULoss(student's box i, teacher's box i)
        L_iou  = w_iou / Z * sum over S of FocalKL of the centerness or IoU branch

    Args:
        cls (dict | None): class term, ``FocalKLLoss``; weight 10 alone, 2 beside LAD, gamma 0.5. Its
            ``temperature`` is 1 in the paper. None or weight 0: off.
        bbox (dict | None): a box loss on decoded boxes, ``GIoULoss`` of weight 1.3.
        score_factor (dict | None | 'auto'): the branch beside the classes, ``FocalKLLoss`` of weight
            10. 'auto': where both heads have the same one.
        min_iou (float): 0.5 in the paper's text; its released soft-label run used 0.1.

    Raises:
        ConfigError: heads that cannot be compared, unknown keys, with the config key.

    Source: Nguyen et al. 2022 (arXiv 2108.10520), section on soft labels, and its released code.
    """

    def __init__(self, key: str, head: nn.Module, theirs: nn.Module, cls: dict | str | None = 'auto',
                 bbox: dict | str | None = 'auto', score_factor: dict | str | None = 'auto',
                 min_iou: float = 0.5, cls_weight: float = 10.0) -> None:
        super().__init__()
        if not 0 <= min_iou < 1:
            raise ConfigError(f'{key}.min_iou: found {min_iou}; an IoU in [0, 1) is expected')
        self.min_iou = float(min_iou)
        self._decoders = decoder_of(head, 'bbox_head'), decoder_of(theirs, 'teacher.config')
        use_sigmoid = _use_sigmoid(head)
        factor, other = score_factor_name(head), score_factor_name(theirs)
        if score_factor == 'auto':
            score_factor = dict() if factor is not None and factor == other else None
        elif score_factor is not None and (factor is None or factor != other):
            raise ConfigError(f'{key}.score_factor: the student\'s {type(head).__name__} has {factor}, the teacher\'s '
                              f'{type(theirs).__name__} {other}; score_factor=None leaves the term out')
        self.factor_name = factor
        self.cls = _built(f'{key}.cls', cls, dict(type='FocalKLLoss', use_sigmoid=use_sigmoid,
                                                  loss_weight=cls_weight))
        if getattr(self.cls, 'use_sigmoid', use_sigmoid) != use_sigmoid:
            raise ConfigError(f'{key}.cls.use_sigmoid: {type(head).__name__} scores with a '
                              f'{"sigmoid" if use_sigmoid else "softmax"}; leave it out')
        self.bbox = _built(f'{key}.bbox', bbox, dict(type='GIoULoss', loss_weight=1.3))
        self.score_factor = _built(f'{key}.score_factor', score_factor, dict(type='FocalKLLoss', loss_weight=10.0))
        _check_pair(key, head, theirs, self.cls is not None)

    @classmethod
    def build(cls, key: str, cfg: dict, head: nn.Module, theirs: nn.Module,
              beside_lad: bool) -> 'SoftLabelTerms | None':
        """From the config dict under ``key``; None when every term is off."""
        if not isinstance(cfg, dict) or set(cfg) - TERM_KEYS:
            raise ConfigError(f'{key}: found {cfg!r}; a dict with some of {sorted(TERM_KEYS)} is expected')
        terms = cls(key, head, theirs, **cfg, cls_weight=2.0 if beside_lad else 10.0)
        return terms if terms.names else None

    @property
    def names(self) -> list[str]:
        """Of the terms that are on."""
        named = (('loss_cls_distill', self.cls), ('loss_bbox_distill', self.bbox),
                 (f'loss_{self.factor_name}_distill', self.score_factor))
        return [name for name, loss in named if loss is not None]

    def forward(self, head: nn.Module, outputs: tuple, theirs: nn.Module, taught: tuple,
                samples: list) -> dict[str, Tensor]:
        """The terms by name.

        Args:
            head, outputs: the student's head and what it returned, in training format.
            theirs, taught: the teacher's.
            samples: N samples with ``gt_instances``.
        """
        decode, decode_theirs = self._decoders
        student = DenseOutputs.of(head, decode, outputs)
        with torch.no_grad():
            teacher = DenseOutputs.of(theirs, decode_theirs, taught)
            if student.logits.shape != teacher.logits.shape:
                raise RuntimeError(f'the student scores {tuple(student.logits.shape)} (images, priors, classes), the '
                                   f'teacher {tuple(teacher.logits.shape)}; both need the same padding '
                                   '(data_preprocessor.pad_size_divisor)')
            chosen = [self._near_objects(teacher.boxes(i), sample.gt_instances) for i, sample in enumerate(samples)]
            overlaps = torch.cat([m for _, _, m in chosen])  # (S,), m_i
            normaliser = reduce_mean(overlaps.sum()).clamp(min=len(samples))  # Z
        losses = {}
        if self.cls is not None:
            losses['loss_cls_distill'] = self.cls(student.logits.flatten(0, 1), teacher.logits.flatten(0, 1),
                                                  avg_factor=normaliser)
        if self.bbox is not None:
            boxes = torch.cat([student.boxes(i, index) for i, (index, _, _) in enumerate(chosen)])  # (S, 4)
            targets = torch.cat([target for _, target, _ in chosen])  # (S, 4)
            losses['loss_bbox_distill'] = self.bbox(boxes, targets, weight=overlaps, avg_factor=normaliser)
        if self.score_factor is not None:
            ours, soft = (torch.cat([side.factor[i, index] for i, (index, _, _) in enumerate(chosen)])
                          for side in (student, teacher))  # (S,)
            losses[f'loss_{self.factor_name}_distill'] = self.score_factor(ours, soft, avg_factor=normaliser)
        return losses

    def _near_objects(self, boxes: Tensor, gts: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Priors (s,) whose teacher box overlaps an object enough, these boxes (s, 4), m_i (s,)."""
        if len(gts) == 0:
            return boxes.new_zeros(0, dtype=torch.long), boxes[:0], boxes[:0, 0]
        best = bbox_overlaps(boxes.float(), get_box_tensor(gts.bboxes).float()).amax(1)  # (P,)
        index = (best > self.min_iou).nonzero().flatten()
        return index, boxes[index], best[index]

    def describe(self) -> list[str]:
        """Lines for the plan."""
        parts = [(name, getattr(self, part)) for part, name in (('cls', 'classes'), ('bbox', 'boxes'),
                                                                ('score_factor', self.factor_name))]
        return [f'soft labels: {name}, {type(loss).__name__} of weight {loss.loss_weight:g}'
                + ('' if name == 'classes' else f', where the teacher\'s box has IoU > {self.min_iou:g}')
                for name, loss in parts if loss is not None]


class SoftLabelDistiller(DistillerMixin, SingleStageDetector):
    """A dense single-stage detector that imitates a teacher's predictions; assignment plays no part.

    For every head that :mod:`kd_det.detectors.dense_outputs` can read, static assigners included
    (RetinaNet, ATSS, GFL, FCOS, PAA, DDOD, TOOD, RTMDet).

    Args:
        teacher (dict): see :class:`kd_det.teacher.FrozenTeacher`; ``scale_factor`` must be 1.
        soft_label (dict): see :class:`SoftLabelTerms`; ``dict()`` takes the paper's values.
        ground_truth (bool): keep the student's own losses beside the soft labels. The paper's
            baseline has none.
        hints (list[dict]): see :class:`kd_det.hints.Hint`.
        **student: the student's own arguments.

    Raises:
        ConfigError: see :class:`SoftLabelTerms`; nothing left to train on.
    """

    distill_keys = ('teacher', 'soft_label', 'ground_truth', 'hints')
    deployed_type = 'SingleStageDetector'

    def __init__(self, *args: Any, teacher: dict, soft_label: dict, ground_truth: bool = False,
                 hints: list[dict] | tuple = (), **student: Any) -> None:
        super().__init__(*args, **student)
        self.init_distillation(teacher, hints)
        self.ground_truth = bool(ground_truth)
        theirs = getattr(self.teacher.model, 'bbox_head', None)
        if theirs is None:
            raise ConfigError(f'teacher.config: {type(self.teacher.model).__name__} has no bbox_head; '
                              'SoftLabelDistiller needs a single-stage detector')
        if self.teacher.scale_factor != 1:
            raise ConfigError(f'teacher.scale_factor: found {self.teacher.scale_factor}; predictions are compared '
                              'prior by prior, which needs 1')
        self.soft_label = SoftLabelTerms.build('soft_label', soft_label, self.bbox_head, theirs, beside_lad=False)
        if self.soft_label is None and not self.ground_truth:
            raise ConfigError('soft_label: every term is off and ground_truth=False leaves the head without a loss; '
                              'set ground_truth=True or a weight')
        if self.soft_label is not None:
            self.distill_terms += self.soft_label.names

    def _probe(self, student_image: Tensor, teacher_image: Tensor) -> None:
        for model, image in ((self, student_image), (self.teacher.model, teacher_image)):
            features = model.extract_feat(image)
            with training_format(model.bbox_head):
                model.bbox_head(features)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """``distill_terms``, and the student's own losses with ``ground_truth``.

        Args:
            batch_inputs: (N, 3, H, W).
            batch_data_samples: N samples with ``gt_instances``, boxes xyxy in the padded,
                augmented image.
        """
        if self.soft_label is None and not len(self.adapters):
            return super().loss(batch_inputs, batch_data_samples)
        model = self.teacher.model
        with torch.no_grad(), self.tap_hints(model, 'teacher_layer') as hints, training_format(model.bbox_head):
            features = model.extract_feat(self.teacher.prepare(batch_inputs, batch_data_samples))
            taught = model.bbox_head(features) if self.soft_label is not None or self.hints_below('bbox_head') else None
        outputs: list[tuple] = []
        with self.tap_hints(self, 'layer') as guided, tap_layer(self.bbox_head, outputs):
            if self.ground_truth:
                losses = super().loss(batch_inputs, batch_data_samples)
            else:
                losses = {}
                self.bbox_head(self.extract_feat(batch_inputs))
        if self.soft_label is not None:
            losses.update(self.soft_label(self.bbox_head, outputs[0], model.bbox_head, taught, batch_data_samples))
        losses.update(self.hint_losses(guided, hints))
        return losses

    def plan(self) -> list[str]:
        lines = super().plan()
        lines += self.soft_label.describe() if self.soft_label is not None else []
        lines.append('ground truth: the student\'s own losses stay' if self.ground_truth
                     else 'ground truth: no loss of its own, only where the teacher is near an object')
        if not self.distill_terms:
            lines.append('NOTHING IS DISTILLED: every term is off or has weight 0')
        return lines


def _built(key: str, cfg: dict | str | None, default: dict) -> nn.Module | None:
    """The loss; what the config leaves out is the default's, as long as the type is."""
    if cfg == 'auto':
        cfg = {}
    if cfg is not None and not isinstance(cfg, dict):
        raise ConfigError(f'{key}: found {cfg!r}; a dict or None is expected')
    if cfg is None:
        return None
    cfg = {**default, **cfg} if cfg.get('type', default['type']) == default['type'] else dict(cfg)
    if cfg.get('loss_weight', 1) == 0:  # a term of weight 0 is not computed
        return None
    try:
        return MODELS.build(cfg)
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f'{key}: {error}') from error


def _use_sigmoid(head: nn.Module) -> bool:
    return bool(getattr(head, 'use_sigmoid_cls', True))


def _check_pair(key: str, head: nn.Module, theirs: nn.Module, classes: bool) -> None:
    """Both heads must score the same classes for the same number of priors at each place."""
    if classes and (head.num_classes != theirs.num_classes or _use_sigmoid(head) != _use_sigmoid(theirs)):
        raise ConfigError(f'{key}.cls: the student scores {head.num_classes} classes with a '
                          f'{"sigmoid" if _use_sigmoid(head) else "softmax"}, the teacher {theirs.num_classes} with a '
                          f'{"sigmoid" if _use_sigmoid(theirs) else "softmax"}; bbox_head.num_classes and '
                          'bbox_head.loss_cls.use_sigmoid must agree')
    places = [(list(h.prior_generator.num_base_priors), [s[0] if isinstance(s, tuple) else s
                                                         for s in h.prior_generator.strides]) for h in (head, theirs)]
    if places[0] != places[1]:
        raise ConfigError(f'bbox_head: the student has {places[0][0]} priors a place at strides {places[0][1]}, the '
                          f'teacher {places[1][0]} at {places[1][1]}; soft labels compare prior by prior')
