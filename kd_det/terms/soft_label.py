"""Soft labels for dense heads (the baseline of Nguyen et al. 2022, and SoLAD's second part)."""
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ..arguments import boolean, fraction
from ..build import checked
from ..errors import ConfigError
from ..heads.dense_outputs import decoder_of, score_factor_name
from ..sources.mixture import known_only
from .compared import build_loss, is_off
from .dense import check_dense_pair, dense_head, hear_dense, known_classes, student_outputs, uses_sigmoid
from .schedule import training_progress
from .step import Step
from .term import Term

PARTS = ('cls', 'bbox', 'score_factor')


class SoftLabel(Term):
    """The teacher's dense predictions as targets::

        m_i    = max over ground truths of IoU(teacher's box i, ground truth)
        S      = {i : m_i > min_iou},   Z = sum of m_i over S (mean over ranks; at least N images, which is ours)
        L_cls  = w_cls / Z * sum over all priors and classes of FocalKL(student, teacher)
        L_bbox = w_box / Z * sum over S of m_i * GIoULoss(student's box i, teacher's box i)
        L_iou  = w_iou / Z * sum over S of FocalKL of the centerness or IoU branch

    For every head that :mod:`kd_det.heads.dense_outputs` can read, static assigners included (RetinaNet, ATSS, GFL,
    FCOS, PAA, DDOD, TOOD, RTMDet, YOLOX).

    Args:
        cls (dict | None): class term, ``FocalKLLoss``; weight 10 alone, 2 beside LAD, gamma 0.5. Its
            ``temperature`` is 1 in the paper. None or weight 0: off.
        bbox (dict | None): a box loss on decoded boxes, ``GIoULoss`` of weight 1.3.
        score_factor (dict | None | 'auto'): the branch beside the classes, ``FocalKLLoss`` of weight
            10. 'auto': where both heads have the same one.
        min_iou (float): 0.5 in the paper's text; its released soft-label run used 0.1.
        anneal (bool): l = the part of training that is over weighs the student's own losses, 1 - l the soft labels: from
            pure distillation to plain training (Clark et al. 2019, BAM, arXiv 1907.04829). Needs ground_truth=True.
        beside_lad (bool): whether the class term's default weight is that of SoLAD.
        **term: see :class:`kd_det.terms.term.Term`.

    Raises:
        ConfigError: heads that cannot be compared, unknown keys, with the config key.

    Source: Nguyen et al. 2022 (arXiv 2108.10520), section on soft labels, and its released code.
    """

    needs_labels = True
    takes_several = True
    compares_classes = True

    def __init__(self, cls: dict | str | None = 'auto', bbox: dict | str | None = 'auto',
                 score_factor: dict | str | None = 'auto', min_iou: float = 0.5, beside_lad: bool = False,
                 anneal: bool = False, **term: Any) -> None:
        super().__init__(**term)
        self.anneal = checked(f'{self.key}.anneal', boolean, anneal)
        self.min_iou, self._beside_lad = checked(f'{self.key}.min_iou', fraction, min_iou), beside_lad
        self._cfgs = dict(cls=cls, bbox=bbox, score_factor=score_factor)
        for part, cfg in self._cfgs.items():
            if cfg is not None and cfg != 'auto' and not isinstance(cfg, dict):
                raise ConfigError(f'{self.key}.{part}: found {cfg!r}; a dict or None is expected')
        self.cls = self.bbox = self.score_factor = None
        self.factor_name: str | None = None

    @property
    def off(self) -> bool:
        return all(is_off(cfg) for cfg in self._cfgs.values())

    def check(self, student: nn.Module, source: Any) -> None:
        head, theirs = dense_head(student, 'model'), dense_head(source.model, f'{source.key}.config')
        decoder_of(head, 'bbox_head')
        decoder_of(theirs, f'{source.key}.config')
        check_dense_pair(self.key, student, source)
        factor, other = score_factor_name(head), score_factor_name(theirs)
        wanted = self._cfgs['score_factor']
        if wanted == 'auto':
            wanted = {} if factor is not None and factor == other else None
        elif wanted is not None and (factor is None or factor != other):
            raise ConfigError(f'{self.key}.score_factor: the student\'s {type(head).__name__} has {factor}, the teacher\'s '
                              f'{type(theirs).__name__} {other}; score_factor=None leaves the term out')
        self.factor_name = factor
        self._sigmoid = sigmoid = uses_sigmoid(head)
        self.cls = self._built('cls', self._cfgs['cls'], dict(
            type='FocalKLLoss', use_sigmoid=sigmoid, loss_weight=2.0 if self._beside_lad else 10.0), 'scores')
        if getattr(self.cls, 'use_sigmoid', sigmoid) != sigmoid:
            raise ConfigError(f'{self.key}.cls.use_sigmoid: {type(head).__name__} scores with a '
                              f'{"sigmoid" if sigmoid else "softmax"}; leave it out')
        self.bbox = self._built('bbox', self._cfgs['bbox'], dict(type='GIoULoss', loss_weight=1.3), 'decoded boxes')
        self.score_factor = self._built('score_factor', wanted, dict(type='FocalKLLoss', loss_weight=10.0), 'scores')
        if self.cls is not None:
            ours, others = (uses_sigmoid(one) for one in (head, theirs))
            if known_classes(source, head.num_classes) != theirs.num_classes or ours != others:
                raise ConfigError(f'{self.key}.cls: the student scores {head.num_classes} classes with a '
                                  f'{"sigmoid" if ours else "softmax"}, the teacher {theirs.num_classes} with a '
                                  f'{"sigmoid" if others else "softmax"}; bbox_head.num_classes and '
                                  'bbox_head.loss_cls.use_sigmoid must agree')
        if self.anneal and not getattr(student, 'ground_truth', True):
            raise ConfigError(f'{self.key}.anneal: True needs ground_truth=True: training ends with the student\'s own '
                              'losses alone')
        if not getattr(student, 'ground_truth', True):
            self._check_alone(type(head).__name__, factor)

    def _built(self, part: str, cfg: dict | str | None, default: dict, kind: str) -> nn.Module | None:
        if is_off(cfg):
            return None
        return build_loss(f'{self.key}.{part}', {} if cfg == 'auto' else cfg, default, kind)

    def _check_alone(self, head: str, factor: str | None) -> None:
        """Without the student's own losses, whatever prediction uses must be trained by the soft labels."""
        missing = [part for part, loss in (('cls', self.cls), ('bbox', self.bbox)) if loss is None]
        if factor is not None and self.score_factor is None:
            missing.append('score_factor')
        if missing:
            branches = {'cls': 'classes', 'bbox': 'boxes', 'score_factor': factor}
            raise ConfigError(f'{self.key}.{missing[0]}: {head}\'s {" and ".join(branches[part] for part in missing)} '
                              'would never be trained, and prediction uses them: without the student\'s own losses every '
                              'branch needs a soft label, which the teacher must have too. Set ground_truth=True, or give '
                              'the term')

    def names(self) -> list[str]:
        named = (('loss_cls_distill', self.cls), ('loss_bbox_distill', self.bbox),
                 (f'loss_{self.factor_name}_distill', self.score_factor))
        return [name + self.suffix for name, loss in named if loss is not None]

    def around(self, step: Step) -> None:
        hear_dense(step)

    def adjust(self, step: Step, losses: dict[str, Any], factor: float) -> None:
        if self.anneal:
            weight = 1 - factor * (1 - training_progress())
            for name in [name for name in losses if 'loss' in name and '_distill' not in name]:
                value = losses[name]
                losses[name] = [v * weight for v in value] if isinstance(value, list) else value * weight

    def losses(self, step: Step) -> dict[str, Tensor]:
        source, student = step.source(self.source), student_outputs(step)
        with torch.no_grad():
            teacher = source.dense_outputs()
            if student.logits.shape != teacher.logits.shape:
                raise RuntimeError(f'the student scores {tuple(student.logits.shape)} (images, priors, classes), the '
                                   f'teacher {tuple(teacher.logits.shape)}; both need the same padding '
                                   '(data_preprocessor.pad_size_divisor)')
            chosen = [self._near_objects(teacher.boxes(i), _of_known(sample.gt_instances, source.known))
                      for i, sample in enumerate(step.samples)]
            overlaps = torch.cat([m for _, _, m in chosen])  # (S,), m_i
            normaliser = reduce_mean(overlaps.sum()).clamp(min=len(step.samples))  # Z
        losses = {}
        if self.cls is not None:
            ours, soft = (known_only(side.logits.flatten(0, 1), source.known, self._sigmoid)
                          for side in (student, teacher))
            losses['loss_cls_distill'] = self.cls(ours, soft, avg_factor=normaliser)
        if self.bbox is not None:
            boxes = torch.cat([student.boxes(i, index) for i, (index, _, _) in enumerate(chosen)])  # (S, 4)
            targets = torch.cat([target for _, target, _ in chosen])  # (S, 4)
            losses['loss_bbox_distill'] = self.bbox(boxes, targets, weight=overlaps, avg_factor=normaliser)
        if self.score_factor is not None:
            ours, soft = (torch.cat([side.factor[i, index] for i, (index, _, _) in enumerate(chosen)])
                          for side in (student, teacher))  # (S,)
            losses[f'loss_{self.factor_name}_distill'] = self.score_factor(ours, soft, avg_factor=normaliser)
        share = 1 - training_progress() if self.anneal else 1
        return {name + self.suffix: value * share if self.anneal else value for name, value in losses.items()}

    def _near_objects(self, boxes: Tensor, gts: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Priors (s,) whose teacher box overlaps an object enough, these boxes (s, 4), m_i (s,)."""
        if len(gts) == 0:
            return boxes.new_zeros(0, dtype=torch.long), boxes[:0], boxes[:0, 0]
        best = bbox_overlaps(boxes.float(), get_box_tensor(gts.bboxes).float()).amax(1)  # (P,)
        index = (best > self.min_iou).nonzero().flatten()
        return index, boxes[index], best[index]

    def describe(self) -> list[str]:
        parts = [(name, getattr(self, part)) for part, name in zip(PARTS, ('classes', 'boxes', self.factor_name))]
        return [f'soft labels: {name}, {type(loss).__name__} of weight {loss.loss_weight:g}'
                + ('' if name == 'classes' else f', where the teacher\'s box has IoU > {self.min_iou:g}')
                for name, loss in parts if loss is not None] + [self.schedule.describe()][:not self.schedule.is_constant]


def _of_known(gts: Any, known: Tensor | None) -> Any:
    """The objects of classes that the source speaks about."""
    return gts if known is None or len(gts) == 0 else gts[known.to(gts.labels.device)[gts.labels]]
