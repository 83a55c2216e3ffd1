"""Faster R-CNN distillation (Chen et al., NIPS 2017): soft targets, teacher-bounded regression and hints."""
import inspect
from contextlib import ExitStack

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..errors import ConfigError
from ..tap import tap_method
from .distiller import DistillerMixin
from .stage import STAGE_KEYS, StageDistillation


class FasterRCNNDistiller(DistillerMixin, TwoStageDetector):
    """A two-stage detector taught by another one in both stages and through hints.

    The student is any ``TwoStageDetector`` config of the Faster R-CNN kind (Mask R-CNN's box branch, Cascade R-CNN's
    stages), the teacher any such detector. The student's own ``loss`` runs once and unchanged; what it hands to its
    losses (scores, deltas, targets, sampled RoIs) is listened to, and the teacher answers for the same anchors and the
    same RoIs with its own features.

    Normalisation is that of the ordinary term of the same kind: RPN terms by the head's ``avg_factor``, R-CNN terms by
    the sampled RoIs. Box terms act on positives, in the student's box encoding.

    Args:
        teacher (dict): see :class:`kd_det.teacher.FrozenTeacher`.
        rpn_distill, rcnn_distill (dict | None): see :class:`kd_det.detectors.stage.StageDistillation`; ``dict()`` takes
            the paper's values, None leaves the stage as it is.
        hints (list[dict]): see :class:`kd_det.hints.Hint`.
        **student: the student's own arguments.

    Raises:
        ConfigError: what teacher and student cannot share (anchors, classes, kinds of heads), with the config key.

    Source: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017.
    """

    distill_keys = ('teacher', 'rpn_distill', 'rcnn_distill', 'hints')
    deployed_type = 'TwoStageDetector'

    def __init__(self, *args, teacher: dict, rpn_distill: dict | None = None, rcnn_distill: dict | None = None,
                 hints: list[dict] | tuple = (), **student) -> None:
        super().__init__(*args, **student)
        self._hint_specs = hints
        self.init_distillation(teacher, hints)
        if not isinstance(self.teacher.model, TwoStageDetector):
            raise ConfigError(f'teacher.config: {type(self.teacher.model).__name__} is no two-stage detector; '
                              'FasterRCNNDistiller needs one of the Faster R-CNN kind')
        self.rpn_distill = self._stage('rpn_distill', rpn_distill, self._rpn_use_sigmoid())
        self.rcnn_distill = self._stage('rcnn_distill', rcnn_distill, False)
        self._rpn_levels = self._match_rpn_levels() if self._rpn_active or self.hints_below('rpn_head') else []
        if self._rcnn_active:
            self._check_rcnn()
        self.distill_terms += self._term_names()

    # -- build ------------------------------------------------------------------------------------------------------
    @staticmethod
    def _stage(key: str, cfg: dict | None, use_sigmoid: bool) -> StageDistillation | None:
        if cfg is None:
            return None
        if not isinstance(cfg, dict) or set(cfg) - STAGE_KEYS:
            raise ConfigError(f'{key}: found {cfg!r}; a dict with some of {sorted(STAGE_KEYS)} is expected')
        return StageDistillation(**cfg, use_sigmoid=use_sigmoid, key=key)

    def _rpn_use_sigmoid(self) -> bool:
        return bool(getattr(getattr(self, 'rpn_head', None), 'use_sigmoid_cls', True))

    @property
    def _rpn_active(self) -> bool:
        return self.rpn_distill is not None and self.rpn_distill.active

    @property
    def _rcnn_active(self) -> bool:
        return self.rcnn_distill is not None and self.rcnn_distill.active

    @property
    def _box_heads(self) -> list[nn.Module]:
        """The student's box heads, one per cascade stage."""
        heads = self.roi_head.bbox_head
        return list(heads) if isinstance(heads, nn.ModuleList) else [heads]

    @property
    def _teacher_box_heads(self) -> list[nn.Module]:
        heads = self.teacher.model.roi_head.bbox_head
        return list(heads) if isinstance(heads, nn.ModuleList) else [heads]

    def _match_rpn_levels(self) -> list[tuple[int, int]]:
        """(student level, teacher level) of equal relative stride and equal anchors; the rest takes no part."""
        for name, model in (('student', self), ('teacher', self.teacher.model)):
            if not isinstance(getattr(model, 'rpn_head', None), RPNHead):
                raise ConfigError(f'rpn_distill: the {name} has {type(getattr(model, "rpn_head", None)).__name__}, an '
                                  'anchor-based RPNHead is needed; rpn_distill=None leaves the stage out')
        student, teacher, scale = self.rpn_head, self.teacher.model.rpn_head, self.teacher.scale_factor
        if student.use_sigmoid_cls != teacher.use_sigmoid_cls:
            raise ConfigError('rpn_distill: one RPN scores with a sigmoid, the other with a softmax; '
                              'set rpn_head.loss_cls.use_sigmoid alike')
        pairs = []
        for i, stride in enumerate(student.prior_generator.strides):
            for j, other in enumerate(teacher.prior_generator.strides):
                if tuple(other) == tuple(scale * s for s in stride):
                    ours = student.prior_generator.base_anchors[i] * scale
                    theirs = teacher.prior_generator.base_anchors[j]
                    if ours.shape != theirs.shape or not torch.allclose(ours, theirs):
                        raise ConfigError(f'rpn_distill: anchors differ at student stride {tuple(stride)}, teacher stride '
                                          f'{tuple(other)}, teacher.scale_factor {scale}: {ours.tolist()} (student, '
                                          f'scaled) against {theirs.tolist()}; use the same rpn_head.anchor_generator')
                    pairs.append((i, j))
        if not pairs:
            raise ConfigError(f'rpn_distill: no level of the student (strides {student.prior_generator.strides}) '
                              f'corresponds to one of the teacher ({teacher.prior_generator.strides}) at '
                              f'teacher.scale_factor {scale}')
        return pairs

    def _check_rcnn(self) -> None:
        ours, theirs = self._box_heads, self._teacher_box_heads
        roi_head = self.teacher.model.roi_head
        if any(getattr(roi_head, name, False) for name in ('with_semantic', 'with_glbctx')):
            raise ConfigError(f'rcnn_distill: the teacher\'s {type(roi_head).__name__} needs its semantic or global '
                              'context branch beside features and RoIs (HTC, SCNet), which is not asked for here; '
                              'rcnn_distill=None leaves R-CNN out')
        if len(ours) != len(theirs):
            raise ConfigError(f'rcnn_distill: the student has {len(ours)} R-CNN stages, the teacher {len(theirs)}; '
                              'rcnn_distill=None leaves R-CNN out')
        for head, other in zip(ours, theirs):
            if head.num_classes != other.num_classes and (self.rcnn_distill.cls is not None
                                                          or not other.reg_class_agnostic):
                raise ConfigError(f'rcnn_distill: the student has {head.num_classes} classes '
                                  f'(roi_head.bbox_head.num_classes), the teacher {other.num_classes}')
            for name, one in (('student', head), ('teacher', other)):
                if self.rcnn_distill.cls is not None and (one.custom_activation
                                                          or getattr(one.loss_cls, 'use_sigmoid', False)):
                    raise ConfigError(f'rcnn_distill.cls: the {name}\'s {type(one).__name__} scores with '
                                      f'{type(one.loss_cls).__name__}, not with a softmax over classes and background')

    def _term_names(self) -> list[str]:
        names = []
        if self._rpn_active:
            names += ['loss_rpn_cls_distill'] * (self.rpn_distill.cls is not None)
            names += ['loss_rpn_bbox_distill'] * (self.rpn_distill.bbox is not None)
        if self._rcnn_active:
            for prefix in self._stage_prefixes():
                names += [f'{prefix}loss_cls_distill'] * (self.rcnn_distill.cls is not None)
                names += [f'{prefix}loss_bbox_distill'] * (self.rcnn_distill.bbox is not None)
        return names

    def _stage_prefixes(self) -> list[str]:
        cascade = isinstance(self.roi_head.bbox_head, nn.ModuleList)
        return [f's{i}.' for i in range(len(self.roi_head.bbox_head))] if cascade else ['']

    def uses_class_names(self) -> bool:
        return self._rcnn_active and (self.rcnn_distill.cls is not None
                                      or not self._teacher_box_heads[0].reg_class_agnostic)

    def _probe(self, student_image: Tensor, teacher_image: Tensor) -> None:
        scale = self.teacher.scale_factor
        side = float(student_image.shape[-1])
        roi = student_image.new_tensor([[0.0, 0.0, 0.0, side / 2, side / 2]])  # (1, 5)
        layers = [(spec['layer'], spec.get('teacher_layer') or spec['layer']) for spec in self._hint_specs]
        self._rpn_levels = []
        if any(b.startswith('rpn_head') for _, b in layers):
            self._rpn_levels = self._match_rpn_levels()
        features = self.extract_feat(student_image)
        if any(a.startswith('rpn_head') for a, _ in layers):
            self.rpn_head(features)
        if any(a.startswith('roi_head') for a, _ in layers):
            for stage in range(len(self._box_heads)):
                _box_forward(self, stage, features, roi)
        features = self.teacher.model.extract_feat(teacher_image)
        if self._rpn_levels:
            self.teacher.model.rpn_head([features[j] for _, j in self._rpn_levels])
        if any(b.startswith('roi_head') for _, b in layers):
            for stage in range(len(self._teacher_box_heads)):
                _box_forward(self.teacher.model, stage, features, _scale_rois(roi, scale))

    # -- the step ---------------------------------------------------------------------------------------------------
    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """The student's own losses, with mu and lambda applied, and one entry per distillation term.

        Args:
            batch_inputs: (N, 3, H, W).
            batch_data_samples: N samples with ``gt_instances``, boxes xyxy in the padded, augmented image.

        Returns:
            dict[str, Tensor | list[Tensor]]: the plain detector's entries and those of ``distill_terms``.
        """
        if not (self._rpn_active or self._rcnn_active or len(self.adapters)):
            for sample in batch_data_samples:
                sample.pop('teacher_view', None)
            return self._weigh_hard_terms(super().loss(batch_inputs, batch_data_samples))
        teacher_inputs = self.teacher.prepare(batch_inputs, batch_data_samples)  # (N, 3, sH, sW)
        rpn_calls: list[dict] = []
        rcnn_calls: list[list[dict]] = [[] for _ in self._box_heads]
        with ExitStack() as taps:
            guided = taps.enter_context(self.tap_hints(self, 'layer'))
            if self._rpn_active:
                taps.enter_context(tap_method(self.rpn_head, 'loss_by_feat_single', _bound_recorder(
                    self.rpn_head.loss_by_feat_single, rpn_calls)))
            if self._rcnn_active or self.hints_below('roi_head'):
                for head, calls in zip(self._box_heads, rcnn_calls):
                    taps.enter_context(tap_method(head, 'loss_and_target', _bound_recorder(head.loss_and_target, calls)))
            losses = super().loss(batch_inputs, batch_data_samples)
        for stage, calls in enumerate(rcnn_calls):
            if (self._rcnn_active or self.hints_below('roi_head')) and len(calls) != 1:
                raise RuntimeError(f'the student called loss_and_target of R-CNN stage {stage} {len(calls)} times a step; '
                                   'FasterRCNNDistiller supports heads that call it once')
        with torch.no_grad(), self.tap_hints(self.teacher.model, 'teacher_layer') as hints:
            rpn_outs, rcnn_outs = self._ask_teacher(teacher_inputs, [calls[0]['rois'] for calls in rcnn_calls if calls])
        self._weigh_hard_terms(losses)
        if self._rpn_active:
            losses.update(self._rpn_losses(rpn_calls, *rpn_outs))
        if self._rcnn_active:
            for stage, prefix in enumerate(self._stage_prefixes()):
                terms = self._rcnn_losses(stage, rcnn_calls[stage][0], *rcnn_outs[stage])
                losses.update({prefix + name: value for name, value in terms.items()})
        losses.update(self.hint_losses(guided, hints))
        return losses

    def _ask_teacher(self, inputs: Tensor, rois: list[Tensor]) -> tuple[tuple, list]:
        """The teacher's RPN at the matched levels and its box heads on the student's RoIs, only where needed."""
        teacher = self.teacher.model
        needs_heads = self._rpn_active or self._rcnn_active or self.hints_below('rpn_head') or self.hints_below('roi_head')
        if not needs_heads and not self.hints_below('neck'):
            teacher.backbone(inputs)
            return (), []
        features = teacher.extract_feat(inputs)
        rpn_outs: tuple = ()
        if self._rpn_active or self.hints_below('rpn_head'):
            rpn_outs = teacher.rpn_head([features[j] for _, j in self._rpn_levels])
        rcnn_outs = []
        if self._rcnn_active or self.hints_below('roi_head'):
            for stage, boxes in enumerate(rois):
                results = _box_forward(teacher, stage, features, _scale_rois(boxes, self.teacher.scale_factor))
                rcnn_outs.append((results['cls_score'], results['bbox_pred']))
        return rpn_outs, rcnn_outs

    def _weigh_hard_terms(self, losses: dict) -> dict:
        """mu on the classification, lambda on the regression of each distilled stage."""
        if self.rpn_distill is not None:
            # an RPN level without a partner in the teacher has no soft term, and keeps its hard one whole
            partnered = [i for i, _ in self._rpn_levels] if self._rpn_active else []
            _weigh(losses, 'loss_rpn_cls', self.rpn_distill.hard_weight, partnered)
            _weigh(losses, 'loss_rpn_bbox', self.rpn_distill.reg_weight)
        if self.rcnn_distill is not None:
            for prefix in self._stage_prefixes():
                _weigh(losses, f'{prefix}loss_cls', self.rcnn_distill.hard_weight)
                _weigh(losses, f'{prefix}loss_bbox', self.rcnn_distill.reg_weight)
        return losses

    def _rpn_losses(self, calls: list[dict], cls_scores: list[Tensor], bbox_preds: list[Tensor]) -> dict[str, Tensor]:
        """Terms over the anchors that the student's RPN sampled, on the levels that have a partner."""
        head, teacher, stage = self.rpn_head, self.teacher.model.rpn_head, self.rpn_distill
        rows: dict[str, list[Tensor]] = {name: [] for name in
                                         ('logits', 'teacher_logits', 'deltas', 'teacher_deltas', 'anchors', 'labels',
                                          'label_weights', 'targets', 'weights')}
        for (i, _), scores, preds in zip(self._rpn_levels, cls_scores, bbox_preds):
            call = calls[i]
            if scores.shape != call['cls_score'].shape:
                raise RuntimeError(f'RPN level {i}: student {tuple(call["cls_score"].shape)} and teacher '
                                   f'{tuple(scores.shape)} score maps differ; both need the same padding '
                                   '(data_preprocessor.pad_size_divisor)')
            rows['logits'].append(_per_anchor(call['cls_score'], head.cls_out_channels))      # (N h w A, C)
            rows['teacher_logits'].append(_per_anchor(scores, teacher.cls_out_channels))
            rows['deltas'].append(_per_anchor(call['bbox_pred'], 4))                          # (N h w A, 4)
            rows['teacher_deltas'].append(_per_anchor(preds, 4))
            rows['anchors'].append(get_box_tensor(call['anchors']).reshape(-1, 4))
            rows['labels'].append(call['labels'].reshape(-1))
            rows['label_weights'].append(call['label_weights'].reshape(-1))
            rows['targets'].append(call['bbox_targets'].reshape(-1, 4))
            rows['weights'].append(call['bbox_weights'].reshape(-1, 4))
        table = {name: torch.cat(parts) for name, parts in rows.items()}
        avg_factor = calls[0]['avg_factor']
        losses = {}
        if stage.cls is not None:
            sampled = table['label_weights'] > 0
            losses['loss_rpn_cls_distill'] = (1 - stage.hard_weight) * stage.cls(
                table['logits'][sampled], table['teacher_logits'][sampled], weight=table['label_weights'][sampled],
                avg_factor=avg_factor)
        if stage.bbox is not None:
            positive = (table['labels'] >= 0) & (table['labels'] < head.num_classes)
            losses['loss_rpn_bbox_distill'] = stage.reg_weight * stage.bbox(
                table['deltas'][positive],
                _recode(table['teacher_deltas'][positive], table['anchors'][positive], teacher.bbox_coder,
                        head.bbox_coder),
                _encoded(table['targets'][positive], table['anchors'][positive], head),
                weight=table['weights'][positive], avg_factor=avg_factor)
        return losses

    def _rcnn_losses(self, stage_index: int, call: dict, cls_score: Tensor, bbox_pred: Tensor) -> dict[str, Tensor]:
        """Terms over the student's sampled RoIs."""
        head, teacher, stage = self._box_heads[stage_index], self._teacher_box_heads[stage_index], self.rcnn_distill
        labels, label_weights, targets, weights = call['result']['bbox_targets']
        # the cascade weighs its stages after their losses were computed
        scale = getattr(self.roi_head, 'stage_loss_weights', [1.0])[stage_index]
        losses = {}
        if stage.cls is not None:
            avg_factor = max(float((label_weights > 0).sum()), 1.0)
            losses['loss_cls_distill'] = scale * (1 - stage.hard_weight) * stage.cls(
                call['cls_score'], cls_score, weight=label_weights, avg_factor=avg_factor)
        if stage.bbox is not None:
            positive = (labels >= 0) & (labels < head.num_classes)
            priors = get_box_tensor(call['rois'])[positive, 1:]
            losses['loss_bbox_distill'] = scale * stage.reg_weight * stage.bbox(
                _of_class(call['bbox_pred'][positive], labels[positive], head),
                _recode(_of_class(bbox_pred[positive], labels[positive], teacher), priors, teacher.bbox_coder,
                        head.bbox_coder),
                _encoded(targets[positive], priors, head),
                weight=weights[positive], avg_factor=max(len(targets), 1))
        return losses

    def plan(self) -> list[str]:
        lines = super().plan()
        for name, stage, active in (('RPN', self.rpn_distill, self._rpn_active),
                                    ('R-CNN', self.rcnn_distill, self._rcnn_active)):
            lines.append(f'{name}: {stage.describe() if active else "plain, nothing distilled"}')
        if self._rpn_active:
            strides = self.rpn_head.prior_generator.strides
            theirs = self.teacher.model.rpn_head.prior_generator.strides
            lines += [f'    student stride {strides[i][0]} <- teacher stride {theirs[j][0]}' for i, j in self._rpn_levels]
            for name, levels, side in (('student', strides, 0), ('teacher', theirs, 1)):
                alone = [s[0] for k, s in enumerate(levels) if k not in [p[side] for p in self._rpn_levels]]
                if alone:
                    lines.append(f'    {name} strides {alone} have no partner and take no part')
        if not self.distill_terms:
            lines.append('NOTHING IS DISTILLED: every term is off or has weight 0')
        return lines


def _bound_recorder(method, calls: list[dict]):
    """Store each call's arguments by name, and its result."""
    signature = inspect.signature(method)

    def record(result, *args, **kwargs) -> None:
        calls.append({**signature.bind(*args, **kwargs).arguments, 'result': result})
    return record


def _weigh(losses: dict, name: str, factor: float, levels: list[int] | None = None) -> None:
    """Multiply a loss (per level: only those in ``levels``) in place; factor 1 leaves the tensors untouched."""
    if factor == 1 or name not in losses:
        return
    value = losses[name]
    if isinstance(value, list):
        losses[name] = [v * factor if levels is None or i in levels else v for i, v in enumerate(value)]
    else:
        losses[name] = value * factor


def _per_anchor(maps: Tensor, channels: int) -> Tensor:
    """(N, A * C, h, w) -> (N * h * w * A, C), MMDetection's order of anchors."""
    return maps.permute(0, 2, 3, 1).reshape(-1, channels)


def _of_class(deltas: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """The box of each row's target class: (P, 4 * classes) or, class-agnostic, (P, 4) -> (P, 4)."""
    if head.reg_class_agnostic:
        return deltas.reshape(len(deltas), 4)
    return deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[torch.arange(len(labels), device=labels.device), labels]


def _same_coder(one: nn.Module, other: nn.Module) -> bool:
    return type(one) is type(other) and all(
        getattr(one, name, None) == getattr(other, name, None) for name in ('means', 'stds'))


def _recode(deltas: Tensor, priors: Tensor, source: nn.Module, target: nn.Module) -> Tensor:
    """Deltas (P, 4) of one box coder in the encoding of another; encodings are relative to the prior, so a common
    scale of image and prior cancels."""
    if _same_coder(source, target):
        return deltas
    return target.encode(priors, get_box_tensor(source.decode(priors, deltas)))


def _encoded(targets: Tensor, priors: Tensor, head: nn.Module) -> Tensor:
    """Targets (P, 4) as deltas: heads with ``reg_decoded_bbox`` hold boxes (xyxy, pixels) instead."""
    return head.bbox_coder.encode(priors, targets) if head.reg_decoded_bbox else targets


def _scale_rois(rois: Tensor, factor: int) -> Tensor:
    """(R, 5) of (image, x1, y1, x2, y2): only the coordinates are scaled."""
    return rois if factor == 1 else rois * rois.new_tensor([1, factor, factor, factor, factor])


def _box_forward(model: TwoStageDetector, stage: int, features: tuple, rois: Tensor) -> dict:
    if isinstance(model.roi_head.bbox_head, nn.ModuleList):
        return model.roi_head._bbox_forward(stage, features, rois)
    return model.roi_head._bbox_forward(features, rois)
