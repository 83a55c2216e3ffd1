"""What a teacher's box heads say of the RoIs that the student samples."""
from typing import Any

from mmdet.models.roi_heads import GridRoIHead, SparseRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead, SABLHead
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..errors import ConfigError
from ..sources.layers import box_heads
from ..sources.mixture import known_only
from .box_coding import encoded, of_class, recode, same_coder
from .dense import known_classes
from .places import places_of, places_of_all
from .stage import Stage
from .stages import describe_stages, pair_stages
from .step import Step


class RCNNDistillation(Stage):
    """:class:`kd_det.terms.stage.Stage` on the RoIs that the student samples, for each R-CNN stage of a cascade.

    The teacher answers for the same RoIs with its own features. Normalised by the sampled RoIs, as the ordinary terms
    are; box terms on positives, in the student's encoding. MMDetection's background class is the last index.

    Args:
        stages (str | list[int]): which of the teacher's R-CNN stages teaches each of the student's, where one of them is a
            cascade and the other has another number of stages; see :func:`kd_det.terms.stages.pair_stages`. 'nearest' in
            IoU threshold (ours; the paper has one stage), 'last', or numbers.
        **stage: see :class:`kd_det.terms.stage.Stage`.

    Source: Chen et al. 2017, eq. 1 to 5.
    """

    def __init__(self, stages: str | list[int] = 'nearest', **stage: Any) -> None:
        super().__init__(**stage)
        self.stages = stages
        self.partners: list[int] = []
        self._plan: list[str] = []

    def check(self, student: nn.Module, source: Any) -> None:
        self.build_losses(False)
        self._compares_classes = False
        if not self.active:
            self.prefixes = _prefixes(student) if hasattr(student, 'roi_head') else ['']
            return
        for name, model in (('student', student), ('teacher', source.model)):
            _check_kind(self.key, name, model)
            _check_strides(name, model)
        ours, theirs = box_heads(student), box_heads(source.model)
        roi_head = source.model.roi_head
        if any(getattr(roi_head, name, False) for name in ('with_semantic', 'with_glbctx')):
            raise ConfigError(f'{self.key}: the teacher\'s {type(roi_head).__name__} needs its semantic or global '
                              'context branch beside features and RoIs (HTC, SCNet), which is not asked for here; '
                              f'{self.key}=None leaves R-CNN out')
        self.partners = pair_stages(self.key, student, source, self.stages)
        self._plan = describe_stages(student, source, self.source, self.partners)
        for head, partner in zip(ours, self.partners):
            self._check_heads(head, theirs[partner], known_classes(source, head.num_classes))
        self.prefixes = _prefixes(student)
        self._compares_classes = self.cls is not None or not theirs[0].reg_class_agnostic

    def _check_heads(self, head: nn.Module, other: nn.Module, classes: int) -> None:
        if classes != other.num_classes and (self.cls is not None or not other.reg_class_agnostic):
            raise ConfigError(f'{self.key}: the student has {classes} classes '
                              f'(roi_head.bbox_head.num_classes), the teacher {other.num_classes}')
        for name, one in (('student', head), ('teacher', other)):
            if self.cls is not None and (one.custom_activation or getattr(one.loss_cls, 'use_sigmoid', False)):
                raise ConfigError(f'{self.key}.cls: the {name}\'s {type(one).__name__} scores with '
                                  f'{type(one.loss_cls).__name__}, not with a softmax over classes and background')

    def check_members(self, student: nn.Module, ensemble: Any) -> None:
        found = []
        for member in ensemble.members.values():
            self.check(student, member)
            found.append(self.partners)
        if not self.active:
            return
        lead = box_heads(ensemble.model)
        for partners, member in zip(found, ensemble.members.values()):
            if partners != found[0] or len(box_heads(member.model)) != len(lead):
                raise ConfigError(f'{self.key}.source: {member.key} has other R-CNN stages than the first member; a term '
                                  'for each teacher can teach them apart')
            for head, first in zip(box_heads(member.model), lead):
                if head.reg_class_agnostic != first.reg_class_agnostic or not same_coder(head.bbox_coder,
                                                                                         first.bbox_coder):
                    raise ConfigError(f'{self.key}.source: {member.key} encodes boxes otherwise than the first member '
                                      '(bbox_coder, reg_class_agnostic), and means of boxes are of one encoding')
        if ensemble.partial and getattr(self.cls, 'class_weight', None) is not None and ensemble.known is not None:
            raise ConfigError(f'{self.key}.cls.class_weight: classes that no teacher knows are left out; give none')

    @property
    def compares_classes(self) -> bool:
        return self._compares_classes

    def asks(self) -> tuple[str, ...]:
        return ('rcnn',) if self.active else ()

    def names(self) -> list[str]:
        kinds = ['cls'] * (self.cls is not None) + ['bbox'] * (self.bbox is not None)
        return [f'{prefix}loss_{kind}_distill{self.suffix}' for prefix in self.prefixes for kind in kinds]

    def around(self, step: Step) -> None:
        if self.active:
            step.hear_rcnn()

    def adjust(self, step: Step, losses: dict[str, Any], factor: float) -> None:
        for prefix in self.prefixes:
            self.weigh(losses, f'{prefix}loss_cls', f'{prefix}loss_bbox', factor)

    def losses(self, step: Step) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if not self.active:
            return losses
        teacher = step.source(self.source)
        for stage, (prefix, partner) in enumerate(zip(self.prefixes, self.partners)):
            call = step.rcnn_call(stage)
            if call is None:  # the cascade ended earlier: no RoI was left
                continue
            answer = teacher.rcnn(partner, stage)
            found = self._terms(stage, call, answer['cls_score'], answer['bbox_pred'], step.student,
                                box_heads(teacher.model)[partner], teacher.known)
            losses.update({f'{prefix}{name}{self.suffix}': value for name, value in found.items()})
        return losses

    def _terms(self, stage: int, call: dict, cls_score: Tensor, bbox_pred: Tensor, student: nn.Module,
               teacher: nn.Module, known: Tensor | None) -> dict[str, Tensor]:
        head = box_heads(student)[stage]
        labels, label_weights, targets, weights = call['result']['bbox_targets']
        # the cascade weighs its stages after their losses were computed
        scale = getattr(student.roi_head, 'stage_loss_weights', [1.0])[stage]
        losses = {}
        if self.cls is not None:
            avg_factor = (label_weights > 0).sum().to(call['cls_score'].dtype).clamp(min=1.0)
            losses['loss_cls_distill'] = scale * self.soft_weight() * self.cls(
                known_only(call['cls_score'], known, False), known_only(cls_score, known, False), weight=label_weights,
                avg_factor=avg_factor)
        if self.bbox is not None:
            positive = _positives(call, labels, head)  # (P,)
            if known is not None:
                positive = positive[known.to(labels.device)[labels[positive]]]
            priors = get_box_tensor(call['rois'])[positive, 1:]
            losses['loss_bbox_distill'] = scale * self.reg_weight * self.bbox(
                of_class(call['bbox_pred'][positive], labels[positive], head),
                recode(of_class(bbox_pred[positive], labels[positive], teacher), priors, teacher.bbox_coder,
                       head.bbox_coder),
                encoded(targets[positive], priors, head),
                weight=weights[positive], avg_factor=max(len(targets), 1))
        return losses

    def describe(self) -> list[str]:
        return [f'R-CNN: {self.describe_losses() if self.active else "plain, nothing distilled"}', *self._plan]


def _positives(call: dict, labels: Tensor, head: nn.Module) -> Tensor:
    """Places (P,) of the RoIs that have an object; the sampler has said already how many, if its word is what counts."""
    mask = (labels >= 0) & (labels < head.num_classes)  # (R,)
    own = all(getattr(type(head), name) is getattr(BBoxHead, name) for name in ('get_targets', '_get_targets_single'))
    if own and call.get('sampling_results') is not None and call.get('concat', True):
        return places_of(mask, sum(len(result.pos_priors) for result in call['sampling_results']))
    return places_of_all(mask)[0]


def _prefixes(student: nn.Module) -> list[str]:
    cascade = isinstance(student.roi_head.bbox_head, nn.ModuleList)
    return [f's{i}.' for i in range(len(student.roi_head.bbox_head))] if cascade else ['']


def _check_strides(name: str, model: nn.Module) -> None:
    """RoIs are cut out of the maps that the RPN scans; with other strides every RoI would be read in the wrong place."""
    generator = getattr(getattr(model, 'rpn_head', None), 'prior_generator', None)
    strides = [stride[0] if isinstance(stride, tuple) else stride for stride in getattr(generator, 'strides', ())]
    extractors = model.roi_head.bbox_roi_extractor
    for extractor in extractors if isinstance(extractors, nn.ModuleList) else [extractors]:
        found = list(getattr(extractor, 'featmap_strides', ()))
        if strides and found != strides[:len(found)]:  # the extractor takes the first maps
            raise ConfigError(f'roi_head.bbox_roi_extractor.featmap_strides: found {found} in the {name}; its RPN has maps '
                              f'of strides {strides}, and RoIs are cut out of the same maps')


def _check_kind(key: str, name: str, model: nn.Module) -> None:
    """Only heads that answer for RoIs with class scores and encoded boxes."""
    if not hasattr(model, 'roi_head') or not hasattr(model.roi_head, 'bbox_head'):
        raise ConfigError(f'{key}: the {name}, {type(model).__name__}, is no two-stage detector with a box head; '
                          f'one of the Faster R-CNN kind is needed, or {key}=None')
    for kind, why in ((GridRoIHead, 'finds boxes by grid points, not by deltas'),
                      (SparseRoIHead, 'has learned proposals of its own, whose i-th means different things in two models')):
        if isinstance(model.roi_head, kind):
            raise ConfigError(f'{key}: the {name}\'s {type(model.roi_head).__name__} {why}; {key}=None leaves R-CNN out')
    for head in box_heads(model):
        if isinstance(head, SABLHead) or not isinstance(head, BBoxHead):
            raise ConfigError(f'{key}: the {name}\'s {type(head).__name__} does not encode boxes as deltas of RoIs '
                              f'(BBoxHead and its subclasses do); {key}=None leaves R-CNN out')
