"""What a teacher's box heads say of the RoIs that the student samples."""
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmdet.models.roi_heads import GridRoIHead, SparseRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead, SABLHead
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ..arguments import at_most_one
from ..build import checked
from ..errors import ConfigError
from ..sources.ensemble import Ensemble
from ..sources.layers import box_heads
from ..sources.mixture import certainty, known_only
from .box_coding import encoded, of_class, recode, same_coder
from .dense import known_classes
from .places import places_of, places_of_all
from .stage import Stage
from .stages import describe_stages, pair_stages
from .step import Step, UnlabelledStep


class RCNNDistillation(Stage):
    """:class:`kd_det.terms.stage.Stage` on the RoIs that the student samples, for each R-CNN stage of a cascade.

    The teacher answers for the same RoIs with its own features. Normalised by the sampled RoIs, as the ordinary terms
    are; box terms on positives, in the student's encoding. MMDetection's background class is the last index.

    On images without labels both answer for the teacher's best proposals, as many for each image as the student samples
    (``rcnn.sampler.num``); normalised by their number, averaged over ranks.

    Args:
        stages (str | list[int]): which of the teacher's R-CNN stages teaches each of the student's, where one of them
            is a cascade and the other has another number of stages; see :func:`kd_det.terms.stages.pair_stages`.
            'nearest' in IoU threshold (ours; the paper has one stage), 'last', or numbers.
        undecided (float | None): the teacher is asked only about RoIs of which the student's certainty
            (:func:`kd_det.sources.mixture.certainty`: 1 minus the normalised entropy of its classes) is at most this,
            in [0, 1]: its box heads do not run on the others. Where no other term asks this teacher (``rpn_distill``
            and hints do), images without such a RoI do not run through it at all. The soft loss of a RoI that is not
            asked about is left out, the divisor stays the number of all RoIs. None or 1: all. The junior of MulDE (Wang
            et al. 2021, arXiv 2010.07152) asks about its K best candidates; which RoIs a detector cannot decide is
            ours. The share of RoIs that were asked about is logged as ``asked_rois``.
        **stage: see :class:`kd_det.terms.stage.Stage`.

    Source: Chen et al. 2017, eq. 1 to 5.
    """

    of_rois = True

    def __init__(self, stages: str | list[int] = 'nearest', undecided: float | None = None, **stage: Any) -> None:
        super().__init__(**stage)
        self.stages = stages
        self.undecided = None if undecided is None else float(checked(f'{self.key}.undecided', at_most_one, undecided))
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
                raise ConfigError(f'{self.key}.source: {member.key} has other R-CNN stages than the first member; a '
                                  'term for each teacher can teach them apart')
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
        return [f'{prefix}{name}{self.suffix}' for prefix in self.prefixes for name in self._kinds()]

    def _kinds(self) -> list[str]:
        return ['loss_cls_distill'] * (self.cls is not None) + ['loss_bbox_distill'] * (self.bbox is not None)

    def unlabelled_names(self) -> list[str]:
        return [f'{prefix}loss_cls_distill{self.suffix}' for prefix in self.prefixes]

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
            rows = _rows(call)
            asked, answer = self._ask(step, partner, stage, call['cls_score'])
            if answer is None:
                found = {name: call['cls_score'].sum() * 0.0 for name in self._kinds()}
            else:
                found = self._terms(stage, rows if asked is None else rows.at(asked), answer, step.student,
                                    box_heads(teacher.model)[partner], teacher.known)
            losses.update({f'{prefix}{name}{self.suffix}': value for name, value in found.items()})
            if asked is not None:
                losses[f'{prefix}asked_rois{self.suffix}'] = rows.labels.new_tensor(
                    len(asked) / max(len(rows.labels), 1), dtype=torch.float32)
        return losses

    def _ask(self, step: Step, partner: int, stage: int, scores: Tensor) -> tuple[Tensor | None, dict | None]:
        """Places (S,) of the RoIs of stage ``stage`` about which the teacher's stage ``partner`` is asked, None: all;
        and its answer for them, None: it is asked about none. ``scores`` (R, C + 1) are the student's.
        """
        teacher = step.source(self.source)
        if self.undecided in (None, 1.0):
            return None, teacher.rcnn(partner, stage)
        asked = places_of_all(certainty(scores.detach(), False) <= self.undecided)[0]
        if not len(asked):
            return asked, None
        return asked, teacher.rcnn_of(partner, stage, asked, self._asks_alone(step.student))

    def _asks_alone(self, student: nn.Module) -> bool:
        """Whether no other term looks at what this one's teachers say."""
        source = student.sources[self.source]
        names = source.members if isinstance(source, Ensemble) else [self.source]
        return all(student.reached(name, list(student.terms)) == [self] for name in names)

    def unlabelled_losses(self, step: UnlabelledStep) -> dict[str, Tensor]:
        teacher, losses = step.source(self.source), {}
        scales = getattr(step.student.roi_head, 'stage_loss_weights', [1.0] * len(self.prefixes))
        for stage, (prefix, partner) in enumerate(zip(self.prefixes, self.partners)):
            scores = step.own.rcnn(stage, stage)['cls_score']
            count = reduce_mean(scores.new_tensor(float(len(scores)))).clamp(min=1)
            asked, answer = self._ask(step, partner, stage, scores)
            if answer is None:
                loss = scores.sum() * 0.0
            else:
                ours, soft = (known_only(one, teacher.known, False)
                              for one in (scores if asked is None else scores[asked], answer['cls_score']))
                loss = scales[stage] * self.cls(ours, soft, avg_factor=count)
            losses[f'{prefix}loss_cls_distill{self.suffix}'] = loss
        return losses

    def _terms(self, stage: int, rows: '_Rows', answer: dict[str, Tensor], student: nn.Module, teacher: nn.Module,
               known: Tensor | None) -> dict[str, Tensor]:
        """The losses of one stage on ``rows``, about which the teacher's ``answer`` is."""
        head = box_heads(student)[stage]
        # the cascade weighs its stages after their losses were computed
        scale = getattr(student.roi_head, 'stage_loss_weights', [1.0])[stage]
        losses = {}
        if self.cls is not None:
            losses['loss_cls_distill'] = scale * self.soft_weight() * self.cls(
                known_only(rows.scores, known, False), known_only(answer['cls_score'], known, False),
                weight=rows.label_weights, avg_factor=rows.sampled)
        if self.bbox is not None:
            positive, labels = rows.positives(head), rows.labels  # (P,)
            if known is not None:
                positive = positive[known.to(labels.device)[labels[positive]]]
            priors, labels = rows.rois[positive, 1:], labels[positive]
            losses['loss_bbox_distill'] = scale * self.reg_weight * self.bbox(
                of_class(rows.boxes[positive], labels, head),
                recode(of_class(answer['bbox_pred'][positive], labels, teacher), priors, teacher.bbox_coder,
                       head.bbox_coder),
                encoded(rows.targets[positive], priors, head),
                weight=rows.weights[positive], avg_factor=max(rows.count, 1))
        return losses

    def describe(self) -> list[str]:
        asks = '' if self.undecided in (None, 1.0) or not self.active else \
            f'; the teacher is asked where the student\'s certainty is at most {self.undecided:g}'
        return [f'R-CNN: {self.describe_losses() if self.active else "plain, nothing distilled"}{asks}', *self._plan]


@dataclass
class _Rows:
    """What the student said of RoIs, and their targets: (R, ...) each.

    Attributes:
        sampled: how many RoIs of the stage have a label weight; a divisor.
        count: how many RoIs there are in all; a divisor.
        objects: how many of these rows have an object, where that is known without asking the device.
    """

    scores: Tensor
    boxes: Tensor | None
    rois: Tensor
    labels: Tensor
    label_weights: Tensor
    targets: Tensor
    weights: Tensor
    sampled: Tensor
    count: int
    objects: int | None

    def at(self, places: Tensor) -> '_Rows':
        """The rows at ``places`` (S,); divisors stay those of all."""
        names = ('scores', 'boxes', 'rois', 'labels', 'label_weights', 'targets', 'weights')
        return replace(self, objects=None, **{name: None if getattr(self, name) is None else getattr(self, name)[places]
                                              for name in names})

    def positives(self, head: nn.Module) -> Tensor:
        """Places (P,) of the RoIs that have an object."""
        mask = (self.labels >= 0) & (self.labels < head.num_classes)  # (R,)
        own = all(getattr(type(head), name) is getattr(BBoxHead, name)
                  for name in ('get_targets', '_get_targets_single'))
        return places_of(mask, self.objects) if own and self.objects is not None else places_of_all(mask)[0]


def _rows(call: dict) -> _Rows:
    """The call of a box head's ``loss_and_target``; the sampler has said already how many RoIs have an object."""
    labels, label_weights, targets, weights = call['result']['bbox_targets']
    objects = None
    if call.get('sampling_results') is not None and call.get('concat', True):
        objects = sum(len(result.pos_priors) for result in call['sampling_results'])
    sampled = (label_weights > 0).sum().to(call['cls_score'].dtype).clamp(min=1.0)
    return _Rows(call['cls_score'], call['bbox_pred'], get_box_tensor(call['rois']), labels, label_weights, targets,
                 weights, sampled, len(targets), objects)


def _prefixes(student: nn.Module) -> list[str]:
    cascade = isinstance(student.roi_head.bbox_head, nn.ModuleList)
    return [f's{i}.' for i in range(len(student.roi_head.bbox_head))] if cascade else ['']


def _check_strides(name: str, model: nn.Module) -> None:
    """RoIs are cut out of the maps that the RPN scans; with other strides every RoI would be read in the wrong place.
    """
    generator = getattr(getattr(model, 'rpn_head', None), 'prior_generator', None)
    strides = [stride[0] if isinstance(stride, tuple) else stride for stride in getattr(generator, 'strides', ())]
    extractors = model.roi_head.bbox_roi_extractor
    for extractor in extractors if isinstance(extractors, nn.ModuleList) else [extractors]:
        found = list(getattr(extractor, 'featmap_strides', ()))
        if strides and found != strides[:len(found)]:  # the extractor takes the first maps
            raise ConfigError(f'roi_head.bbox_roi_extractor.featmap_strides: found {found} in the {name}; its RPN has '
                              f'maps of strides {strides}, and RoIs are cut out of the same maps')


def _check_kind(key: str, name: str, model: nn.Module) -> None:
    """Only heads that answer for RoIs with class scores and encoded boxes."""
    if not hasattr(model, 'roi_head') or not hasattr(model.roi_head, 'bbox_head'):
        raise ConfigError(f'{key}: the {name}, {type(model).__name__}, is no two-stage detector with a box head; '
                          f'one of the Faster R-CNN kind is needed, or {key}=None')
    for kind, why in ((GridRoIHead, 'finds boxes by grid points, not by deltas'),
                      (SparseRoIHead,
                       'has learned proposals of its own, whose i-th means different things in two models')):
        if isinstance(model.roi_head, kind):
            raise ConfigError(f'{key}: the {name}\'s {type(model.roi_head).__name__} {why}; {key}=None leaves R-CNN '
                              'out')
    for head in box_heads(model):
        if isinstance(head, SABLHead) or not isinstance(head, BBoxHead):
            raise ConfigError(f'{key}: the {name}\'s {type(head).__name__} does not encode boxes as deltas of RoIs '
                              f'(BBoxHead and its subclasses do); {key}=None leaves R-CNN out')
