"""CrossKD: the student's features through the teacher's head (Wang et al. 2024)."""
from contextlib import ExitStack
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead, GFLHead
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ..adapters import align_scale
from ..arguments import one_of, positive_int
from ..build import build, checked
from ..errors import ConfigError
from ..heads.dense_outputs import DenseOutputs, score_factor_name
from ..heads.towers import check_entry, towers_of
from ..sources.passes import Pass
from ..sources.recorded import RecordedTeacher
from .compared import compared_by
from .constants import CrossConstants, cross_constants
from .dense import check_binary_classes, check_dense_pair, check_targets, hear_targets, student_outputs, student_targets
from .dense_prediction import DensePrediction
from .seen import expected_positives, priors_inside
from .step import Step, UnlabelledStep

PARTS = dict(cls='logits', bbox='regression', score_factor='factor')  # part -> what of DenseOutputs it compares
NORMALISERS = ('weights', 'centerness')


class CrossHead(DensePrediction):
    """The teacher's predictors read the student's features, and shall say what they say of the teacher's own.

    After convolution ``k`` of its class tower and of its box tower, before the activation, the student's feature f
    leaves::

        g         = align_scale(f, teacher's feature at the same place), then the teacher's activation, the rest of the
                    teacher's tower and its predictors; level by level
        L_cls     = w_cls / N * sum over priors and classes of BCE(crossed, sigmoid(teacher)) |difference|
        L_bbox    = w_box / sum of v * sum over priors of v * loss(crossed box, teacher's box), v = max over classes of
                    sigmoid(teacher)
        L_factor  = w_factor / N * sum over positives of BCE(crossed, sigmoid(teacher)), of centerness or IoU

    N is the number of positives of the student's assigner, averaged over ranks, at least 1. Priors that the assigner
    ignores take no part; levels without positives do. The sum of v is averaged over ranks too (in the released code
    each rank divides by its own, so that ranks with little to see weigh as much as others). With
    ``box_normaliser='centerness'`` the sum of the centerness targets, averaged over ranks and at least 1, stands in its
    place. Boxes of the teacher without area, and crossed boxes that are turned inside out, take no part.

    The gradient passes through the teacher's layers and changes none of them. It reaches the student's towers up to
    convolution k, neck and backbone: what is behind in the student sees the ground truth alone.

    :func:`~kd_det.adapters.align_scale.align_scale` takes its statistics over the batch of one process: the terms
    depend on what a batch holds, and four images are not two and two.

    On images without labels N is what the teacher expects, the sum over priors of its largest score (mean over ranks,
    at least 1), the sum of the centerness targets that of v times the teacher's centerness, and priors whose centre
    lies in the padding take no part. L_factor, which is of positives, is left out.

    Heads: RetinaNet, FCOS, ATSS, GFL, PAA, DDOD, RTMDet, YOLOX and their subclasses, of which teacher and student may
    have different ones with the same priors; see :data:`kd_det.heads.towers.TOWERS`. For several teachers give a term
    for each.

    Args:
        k (int | None): convolutions of the student's towers before it leaves them. Not given, this and the losses are
            those published for the head that predicts, the teacher's (:data:`kd_det.terms.constants.CROSS`), and the
            plan prints them: so many convolutions of the teacher's are left as there.
        teacher_k (int | None): convolutions of the teacher's towers that are left out; ``k`` by default.
        cls (dict | None): class term on logits, ``ModulatedBCELoss``; None or weight 0: off.
        bbox (dict | None): box term, an IoU loss on decoded boxes, or, of GFL heads, ``DistributionKLLoss``.
        score_factor (dict | None): the branch beside the classes, where both heads have the same one, ``SoftBCELoss``.
            The class term of YOLOX is on class score times objectness, and by default its objectness has no term of its
            own.
        box_normaliser (str): 'weights' or 'centerness', of FCOS.
        adapter (dict | None): a layer between f and align_scale, one for each tower, for all levels. By default a 1x1
            convolution without bias (``ConvAdapter``) where the towers' channels differ, none where they agree.
        **term: see :class:`kd_det.terms.term.Term`.

    Raises:
        ConfigError: heads without two towers, other priors, strides or classes, a teacher that scores with a softmax,
            towers of other channels without an adapter, a ``k`` that is not there; with the config key.

    Source: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024.
    """

    takes_several = False
    tag = 'cross'

    def __init__(self, k: int | None = None, teacher_k: int | None = None, box_normaliser: str | None = None,
                 adapter: dict | str | None = 'auto', **term: Any) -> None:
        super().__init__(**term)
        for name, value in (('k', k), ('teacher_k', teacher_k)):
            if value is not None:
                checked(f'{self.key}.{name}', positive_int, value)
        if box_normaliser is not None:
            checked(f'{self.key}.box_normaliser', one_of, box_normaliser, NORMALISERS)
        if adapter is not None and adapter != 'auto' and not isinstance(adapter, dict):
            raise ConfigError(f'{self.key}.adapter: found {adapter!r}; a dict or None is expected')
        self.k, self.teacher_k, self.box_normaliser, self._adapter_cfg = k, teacher_k, box_normaliser, adapter
        self.adapters = nn.ModuleDict()
        self._constants: CrossConstants | None = None
        self._paths: dict[str, tuple[list[str], list[str]]] = {}  # tower -> layers of student and teacher
        self._towers: tuple[str, ...] = ()  # those that a part looks at
        self._plan: list[str] = []

    def defaults(self, use_sigmoid: bool) -> dict[str, dict]:
        found = {part: getattr(self._constants, part) for part in PARTS}
        return {**found, 'score_factor': found['score_factor'] or dict(type='SoftBCELoss', loss_weight=1.0)}

    # -- before training --------------------------------------------------------------------------------------------
    def check(self, student: nn.Module, source: Any) -> None:
        if isinstance(source, RecordedTeacher):
            source.refuse(self)
        head, theirs = check_dense_pair(self.key, student, source)
        ours, others = towers_of(head, 'bbox_head'), towers_of(theirs, f'{source.key}.config')
        check_targets(self.key, student)
        check_binary_classes(self.key, student, source)
        self._constants = cross_constants(theirs)
        published = ['k'] * (self.k is None) + [part for part, cfg in self._cfgs.items() if cfg == 'auto']
        if isinstance(theirs, GFLHead):
            self.kinds = dict(self.kinds, bbox=('decoded boxes', 'distributions'))
        # YOLOX's objectness is in its class logits already
        if self._cfgs['score_factor'] == 'auto' and (self._constants.score_factor is None
                                                     or score_factor_name(theirs) == 'objectness'):
            self._cfgs['score_factor'] = None
        super().check(student, source)
        parts = [part for part in PARTS if getattr(self, part) is not None]
        if not parts:
            raise ConfigError(f'{self.key}: nothing is compared, every loss is off; leave the term out')
        self._choose_normaliser(head)
        self._choose_k(min(tower.depth for tower in ours.values()), min(tower.depth for tower in others.values()))
        origins = check_entry(theirs, others, self.teacher_k, f'{source.key}.config')
        self._towers = tuple(branch for branch in others if any(branch in origins[PARTS[part]] for part in parts))
        for branch in others:
            self._paths[branch] = tuple([f'bbox_head.{path}' for path in towers[branch].paths(k)]
                                        for towers, k in ((ours, self.k), (others, self.teacher_k)))
        for branch in self._towers:
            self._bridge(branch, ours[branch].channels(self.k), others[branch].channels(self.teacher_k))
        names = ' and '.join(ours[branch].name for branch in self._towers)
        self._plan = [f'CrossKD: {names} after convolution {self.k} of {ours["cls"].depth}, through {self.source}\'s '
                      f'{type(theirs).__name__} behind convolution {self.teacher_k} of {others["cls"].depth}',
                      *self._plan]
        published = [name for name in published if name == 'k' or name in parts]
        if published:
            self._plan.append(f'    not given, as published for {self._constants.of}: {", ".join(published)}')

    def _choose_normaliser(self, head: nn.Module) -> None:
        has_targets = isinstance(head, FCOSHead)
        if self.box_normaliser is None:
            self.box_normaliser = self._constants.box_normaliser if has_targets else 'weights'
        elif self.box_normaliser == 'centerness' and not has_targets:
            raise ConfigError(f'{self.key}.box_normaliser: found \'centerness\'; the student\'s {type(head).__name__} '
                              'is no FCOS, whose own loss has that sum; \'weights\' is possible')

    def _choose_k(self, depth: int, their_depth: int) -> None:
        given = self.k
        if self.k is None:
            self.k = max(1, depth - self._constants.left)
        if self.teacher_k is None:
            self.teacher_k = max(1, their_depth - self._constants.left) if given is None else given
        for name, value, limit, whose in (('k', self.k, depth, 'student'), ('teacher_k', self.teacher_k, their_depth,
                                                                            'teacher')):
            if value > limit:
                raise ConfigError(f'{self.key}.{name}: found {value}; the {whose}\'s towers have {limit} convolutions '
                                  f'(bbox_head.stacked_convs), 1 to {limit} are possible')

    def _bridge(self, branch: str, channels: int, their_channels: int) -> None:
        cfg = self._adapter_cfg
        if cfg == 'auto':
            cfg = None if channels == their_channels else {}
        if cfg is None:
            if channels != their_channels:
                raise ConfigError(f'{self.key}.adapter: None, and the student\'s {branch} tower has {channels} '
                                  f'channels, the teacher\'s {their_channels}; leave it out, and a 1x1 convolution '
                                  'carries one to the other')
            return
        adapter = build(f'{self.key}.adapter', cfg, MODELS, dict(type='ConvAdapter', bias=False), in_channels=channels,
                        out_channels=their_channels)
        try:
            with torch.no_grad():
                given = tuple(adapter(torch.zeros(2, channels, 4, 4)).shape)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f'{self.key}.adapter: {cfg} does not take maps of {channels} channels: '
                              f'{error}') from error
        if given != (2, their_channels, 4, 4):
            raise ConfigError(f'{self.key}.adapter: {cfg} makes {given} of (2, {channels}, 4, 4); (2, '
                              f'{their_channels}, 4, 4) is needed, the teacher\'s channels')
        self.adapters[branch] = adapter
        self._plan.append(f'    {branch} tower: {channels} channels to {their_channels} through '
                          f'{type(adapter).__name__}')

    def asks(self) -> None:
        """It runs the teacher's head itself, on the student's features, which no record knows."""

    def layers(self) -> tuple[list[str], list[str]]:
        return tuple([path for branch in self._paths for path in self._paths[branch][side]] for side in (0, 1))

    def connect(self, student: nn.Module, source: Any) -> None:
        for branch, (ours, theirs) in self._paths.items():
            sizes, others = ([shape[2:] for path in paths for shape in shapes[path].levels] for shapes, paths in (
                (student.layer_shapes, ours), (source.shapes, theirs)))
            if sizes != others:
                raise ConfigError(f'{self.key}: the maps of the student\'s {branch} tower are {sizes} for a test '
                                  f'image, the teacher\'s {others}; both need the same levels (neck, bbox_head '
                                  'strides)')

    def describe(self) -> list[str]:
        what = dict(cls='classes, divided by positives', bbox=f'boxes, divided by {self.box_normaliser}')
        lines = [f'    {what.get(name, f"{name}, divided by positives")}: {type(loss).__name__} of weight '
                 f'{loss.loss_weight:g}' for name, loss in self.parts()]
        return [*self._plan[:1], *[f'    {self.schedule.describe()}'][:not self.schedule.is_constant], *lines,
                *self._plan[1:]]

    # -- the step ---------------------------------------------------------------------------------------------------
    def around(self, step: Step) -> None:
        hear_targets(step)
        if self._by_centerness:
            self._centerness(step)

    def losses(self, step: Step) -> dict[str, Tensor]:
        targets, source = student_targets(step), step.source(self.source)
        teacher = self.teacher_outputs(student_outputs(step), source)
        crossed = self._crossed(step, source)
        centerness = torch.stack(self._centerness(step)).sum() if self._by_centerness else None
        cls, bbox = self._dense(crossed, teacher, targets.label_weights, targets.normaliser,
                                targets.box.label_weights, centerness)
        factor = None if self.score_factor is None else self.compare_factors(crossed, teacher, targets.box)
        return self.named(cls, bbox, factor)

    def unlabelled_losses(self, step: UnlabelledStep) -> dict[str, Tensor]:
        student, source = student_outputs(step), step.source(self.source)
        teacher = self.teacher_outputs(student, source)
        inside = priors_inside(student.priors, step.samples)  # (N, P)
        centerness = None
        if self._by_centerness:
            sure = 1.0 if teacher.factor is None else teacher.factor.float().sigmoid()     # (N, P)
            centerness = (teacher.logits.float().sigmoid().amax(2) * sure * inside).sum()
        cls, bbox = self._dense(self._crossed(step, source), teacher, inside, expected_positives(teacher, None, inside),
                                inside, centerness)
        return {name: value for name, value in self.named(cls, bbox, None).items() if value is not None}

    @property
    def _by_centerness(self) -> bool:
        return self.bbox is not None and self.box_normaliser == 'centerness'

    def _dense(self, crossed: DenseOutputs, teacher: DenseOutputs, weights: Tensor, positives: Tensor,
               box_weights: Tensor, centerness: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Class part and box part, None where off; by ``centerness``, or None: by the sum of v, are boxes divided."""
        cls = bbox = None
        if self.cls is not None:
            cls = self.compare_classes(crossed.logits, teacher.logits, None, positives, weights)
        if self.bbox is not None:
            bbox = self._box_loss(crossed, teacher, box_weights > 0, centerness)
        return cls, bbox

    def _box_loss(self, crossed: DenseOutputs, teacher: DenseOutputs, taking_part: Tensor,
                  centerness: Tensor | None) -> Tensor:
        weight = (teacher.logits.float().sigmoid().amax(2) * taking_part).flatten()  # (N P,)
        distributions = compared_by(self.bbox) == 'distributions'
        if not distributions:
            rows, goals = (side.all_boxes().flatten(0, 1) for side in (crossed, teacher))  # (N P, 4)
            weight = weight * (goals[:, 2:] > goals[:, :2]).all(1)
        if centerness is None:
            normaliser = reduce_mean(weight.sum()).clamp(min=1e-6)
        else:
            normaliser = reduce_mean(centerness).clamp(min=1)
        if not distributions:
            return self.compare_boxes(rows, goals, weight, normaliser)
        # (N P, 4, bins)
        rows, goals = (side.regression.flatten(0, 1).unflatten(1, (4, -1)) for side in (crossed, teacher))
        return self.bbox(rows, goals, weight=weight, avg_factor=normaliser)

    @staticmethod
    def _centerness(step: Step) -> list[Tensor]:
        """The sum of the centerness targets, from the student's own loss."""
        return step.hear('centerness', step.student.bbox_head, 'centerness_target',
                         lambda result, arguments: result.detach().sum())

    def _crossed(self, step: Step, source: Pass) -> DenseOutputs:
        """What the teacher's head says of the student's features."""
        with ExitStack() as stack:
            for branch, tower in towers_of(source.model.bbox_head, self.source).items():
                ours, theirs = self._paths[branch]
                features = [level for path in theirs for level in source.layer(path)]
                if branch in self._towers:
                    features = [align_scale(self._mapped(branch, level), feature) for level, feature in zip(
                        (level for path in ours for level in step.layer(path)), features, strict=True)]
                stack.enter_context(tower.entered_after(self.teacher_k, features))
            return source.dense_again()

    def _mapped(self, branch: str, feature: Tensor) -> Tensor:
        return self.adapters[branch](feature) if branch in self.adapters else feature

    def examine(self, step: Step) -> None:
        for branch in self._towers:
            if not any(level.requires_grad for path in self._paths[branch][0] for level in step.layer(path)):
                raise ConfigError(f'{self.key}: nothing that trains lies before convolution {self.k} of the student\'s '
                                  f'{branch} tower (frozen_stages, requires_grad=False, with_cp=True); there is '
                                  'nothing to teach')
