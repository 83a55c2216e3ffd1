"""What a teacher's region proposal network says of the anchors that the student's samples."""
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ..arguments import boolean
from ..build import checked
from ..errors import ConfigError
from .box_coding import encoded, per_anchor, recode, same_coder
from .finer_levels import anchors_of, finer_anchors, surest
from .levels import image_mask
from .places import places_of_all
from .stage import Stage
from .step import Step, UnlabelledStep


class RPNDistillation(Stage):
    """:class:`kd_det.terms.stage.Stage` on the anchors that the student's RPN samples.

    P = (p, 1 - p) of each anchor; normalised by the head's ``avg_factor``, as the ordinary terms are; box terms on
    positives, in the student's encoding. An RPN level without a partner in the teacher keeps its hard loss whole.

    On images without labels as many anchors of each image as the student's RPN samples (``rpn.sampler.num``): half of
    them where the teacher sees objects most, half drawn at random from the others; normalised by their number,
    averaged over ranks.

    Args:
        finer_levels (bool): teacher levels that are finer than the student's finest teach that one too: of each anchor
            the answer of whichever fitting anchor sees an object most, its own or one of the same index in the cells
            that its cell covers (:func:`kd_det.terms.finer_levels.surest`). The teacher's box is the one of that
            anchor. Without it a student at half its teacher's resolution is taught that small objects are background,
            because the teacher finds them on a level that has no partner.
        **stage: see :class:`kd_det.terms.stage.Stage`.

    Source: Chen et al. 2017, eq. 1 to 5.
    """

    def __init__(self, finer_levels: bool = False, **stage: Any) -> None:
        super().__init__(**stage)
        self.finer_levels = checked(f'{self.key}.finer_levels', boolean, finer_levels)
        self.levels: list[tuple[int, int]] = []
        self.finest = 0
        self.finer: list[tuple[int, int]] = []  # (teacher level, its cells a side of a cell of the student's finest)
        self.scale = 1

    def check(self, student: nn.Module, source: Any) -> None:
        self.build_losses(bool(getattr(getattr(student, 'rpn_head', None), 'use_sigmoid_cls', True)))
        self.levels, self.finer, self.scale = [], [], source.scale_factor
        if self.active:
            self.levels = match_levels(self.key, student, source)
            if self.finer_levels:
                self.finest, self.finer = finer_anchors(self.key, student.rpn_head, source.model.rpn_head, self.scale)
            if not self.levels and not self.finer:
                raise ConfigError(f'{self.key}: no level of the student (strides '
                                  f'{student.rpn_head.prior_generator.strides}) corresponds to one of the teacher '
                                  f'({source.model.rpn_head.prior_generator.strides}) at teacher.scale_factor '
                                  f'{self.scale}')
            wanted = {j for _, j in self.levels} | {j for j, _ in self.finer}
            source.rpn_levels = sorted(wanted | set(source.rpn_levels or ()))

    def check_members(self, student: nn.Module, ensemble: Any) -> None:
        found = []
        for member in ensemble.members.values():
            self.check(student, member)
            found.append(((self.levels, self.finer), member.model.rpn_head.bbox_coder) if self.active else ([], None))
        for member, (levels, coder) in zip(ensemble.members.values(), found):
            if self.active and (levels != found[0][0] or not same_coder(coder, found[0][1])):
                raise ConfigError(f'{self.key}.source: {member.key} has other RPN levels or another bbox_coder than '
                                  f'the first member; {self.key}=None leaves the stage out')
        if self.active and ensemble.known is not None:
            raise ConfigError(f'{self.key}.source: no member of {ensemble.key} knows the classes '
                              f'{(~ensemble.known).nonzero().flatten().tolist()}, so their objects would be taught as '
                              f'background; {self.key}=None leaves the stage out')

    def asks(self) -> tuple[str, ...]:
        return ('rpn',) if self.active else ()

    def names(self) -> list[str]:
        return ([f'loss_rpn_cls_distill{self.suffix}'] * (self.cls is not None)
                + [f'loss_rpn_bbox_distill{self.suffix}'] * (self.bbox is not None))

    def unlabelled_names(self) -> list[str]:
        return [f'loss_rpn_cls_distill{self.suffix}']

    def around(self, step: Step) -> None:
        if self.active:
            step.hear('rpn', step.student.rpn_head, 'loss_by_feat_single')

    def adjust(self, step: Step, losses: dict[str, Any], factor: float) -> None:
        self.weigh(losses, 'loss_rpn_cls', 'loss_rpn_bbox', factor, list(self._partners()))

    def losses(self, step: Step) -> dict[str, Tensor]:
        if not self.active:
            return {}
        head, teacher = step.student.rpn_head, step.source(self.source).model.rpn_head
        calls = step.hear('rpn', head, 'loss_by_feat_single')
        with torch.no_grad():
            answers = step.source(self.source).rpn()
        rows: dict[str, list[Tensor]] = {name: [] for name in
                                         ('logits', 'teacher_logits', 'deltas', 'teacher_deltas', 'about', 'anchors',
                                          'labels', 'label_weights', 'targets', 'weights')}
        for i in self._partners():
            call = calls[i]
            soft, boxes, about = self._answer(i, answers, call['cls_score'], head, teacher)
            rows['logits'].append(per_anchor(call['cls_score'], head.cls_out_channels))       # (N h w A, C)
            rows['teacher_logits'].append(soft)
            rows['deltas'].append(per_anchor(call['bbox_pred'], 4))                           # (N h w A, 4)
            rows['teacher_deltas'].append(boxes)
            rows['about'].append(get_box_tensor(call['anchors']).reshape(-1, 4) if about is None else about)
            rows['anchors'].append(get_box_tensor(call['anchors']).reshape(-1, 4))
            rows['labels'].append(call['labels'].reshape(-1))
            rows['label_weights'].append(call['label_weights'].reshape(-1))
            rows['targets'].append(call['bbox_targets'].reshape(-1, 4))
            rows['weights'].append(call['bbox_weights'].reshape(-1, 4))
        table = {name: torch.cat(parts) for name, parts in rows.items()}
        return self._terms(table, head, teacher, calls[0]['avg_factor'])

    def unlabelled_losses(self, step: UnlabelledStep) -> dict[str, Tensor]:
        head, source = step.student.rpn_head, step.source(self.source)
        ours, theirs, canvas = step.own.rpn(), source.rpn(), tuple(step.inputs.shape[-2:])
        rows: dict[str, list[Tensor]] = {'logits': [], 'teacher_logits': [], 'inside': []}
        for i in self._partners():
            scores = ours[i][0]
            soft = self._answer(i, theirs, scores, head, source.model.rpn_head)[0]
            rows['logits'].append(_by_image(scores, head.cls_out_channels))      # (N, h w A, C)
            rows['teacher_logits'].append(soft.view(len(scores), -1, head.cls_out_channels))
            mask = image_mask(step.samples, canvas, tuple(scores.shape[-2:]))    # (N, 1, h, w)
            anchors = scores.shape[1] // head.cls_out_channels
            inside = scores.new_ones(scores[:, :anchors].shape)
            inside = inside if mask is None else inside * mask.to(inside)        # (N, A, h, w)
            rows['inside'].append(_by_image(inside, 1).squeeze(-1) > 0)          # (N, h w A)
        logits, soft, inside = (torch.cat(parts, 1) for parts in rows.values())
        chosen = _places_to_ask(soft.detach(), inside, head.train_cfg['sampler']['num'])  # (S,) of N P
        loss = self.cls(logits.flatten(0, 1)[chosen], soft.flatten(0, 1)[chosen], avg_factor=reduce_mean(
            logits.new_tensor(float(len(chosen)))).clamp(min=1))
        return {f'loss_rpn_cls_distill{self.suffix}': loss}

    def _partners(self) -> dict[int, list[tuple[int, int]]]:
        """Student level -> (teacher level, its cells a side of a cell of the student's) of those that answer for it."""
        found = {i: [(j, 1)] for i, j in self.levels}
        if self.finer:
            found.setdefault(self.finest, []).extend(self.finer)
        return dict(sorted(found.items()))

    def _answer(self, i: int, answers: dict[int, tuple[Tensor, Tensor]], ours: Tensor, head: nn.Module,
                teacher: nn.Module) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scores (N h w A, C) and deltas (N h w A, 4) for the anchors of the student's level i, whose scores are
        ``ours``; and the anchors (N h w A, 4) that the deltas are about, where those are not the student's.
        """
        partners = self._partners()[i]
        for j, k in partners:
            if k == 1 and answers[j][0].shape != ours.shape:
                raise RuntimeError(f'RPN level {i}: student {tuple(ours.shape)} and teacher '
                                   f'{tuple(answers[j][0].shape)} score maps differ; both need the same padding '
                                   '(data_preprocessor.pad_size_divisor)')
        if partners == [(partners[0][0], 1)]:
            scores, deltas = answers[partners[0][0]]
            return per_anchor(scores, teacher.cls_out_channels), per_anchor(deltas, 4), None
        return surest([(*answers[j], anchors_of(teacher, j, answers[j][0], self.scale), k) for j, k in partners],
                      tuple(ours.shape[-2:]), teacher.cls_out_channels)

    def _terms(self, table: dict[str, Tensor], head: nn.Module, teacher: nn.Module,
               avg_factor: Any) -> dict[str, Tensor]:
        losses = {}
        sampled, positive = places_of_all(  # (S,), (P,); masks would make the host wait at each use
            table['label_weights'] > 0, (table['labels'] >= 0) & (table['labels'] < head.num_classes))
        if self.cls is not None:
            losses[f'loss_rpn_cls_distill{self.suffix}'] = self.soft_weight() * self.cls(
                table['logits'][sampled], table['teacher_logits'][sampled], weight=table['label_weights'][sampled],
                avg_factor=avg_factor)
        if self.bbox is not None:
            losses[f'loss_rpn_bbox_distill{self.suffix}'] = self.reg_weight * self.bbox(
                table['deltas'][positive],
                recode(table['teacher_deltas'][positive], table['anchors'][positive], teacher.bbox_coder,
                       head.bbox_coder, table['about'][positive] if self.finer else None),
                encoded(table['targets'][positive], table['anchors'][positive], head),
                weight=table['weights'][positive], avg_factor=avg_factor)
        return losses

    def describe(self) -> list[str]:
        lines = [f'RPN: {self.describe_losses() if self.active else "plain, nothing distilled"}']
        if self.active:
            for i, partners in self._partners().items():
                strides = ' and '.join(str(self._theirs[j]) for j, _ in partners)
                how = ', whichever anchor sees an object most' if len(partners) > 1 or partners[0][1] > 1 else ''
                lines.append(f'    student stride {self._ours[i]} <- {self.source} stride {strides}{how}')
            lines += self._alone
        return lines

    @property
    def _alone(self) -> list[str]:
        teaching = {j for partners in self._partners().values() for j, _ in partners}
        lines = []
        for name, strides, takes_part in (('student', self._ours, self._partners()),
                                          ('teacher', self._theirs, teaching)):
            alone = [s for k, s in enumerate(strides) if k not in takes_part]
            if alone:
                lines.append(f'    {name} strides {alone} have no partner and take no part')
        return lines

    def connect(self, student: nn.Module, source: Any) -> None:
        if self.active:
            self._ours = [s[0] for s in student.rpn_head.prior_generator.strides]
            self._theirs = [s[0] for s in source.model.rpn_head.prior_generator.strides]


def _by_image(maps: Tensor, channels: int) -> Tensor:
    """(N, A C, h, w) -> (N, h w A, C)."""
    return per_anchor(maps, channels).view(len(maps), -1, channels)


def _places_to_ask(soft: Tensor, inside: Tensor, count: int) -> Tensor:
    """Of each image ``count`` anchors, or all: half those of the largest objectness, half at random from the others.

    Args:
        soft: (N, P, C) of the teacher.
        inside: bool (N, P), anchors at the image and not at its padding.

    Returns:
        long (S,), places in N P.
    """
    seen = soft[..., 0] - soft[..., 1] if soft.shape[-1] == 2 else soft[..., 0]  # (N, P), the background is last
    chosen = []
    for image, (one, fits) in enumerate(zip(seen, inside)):
        best = one.masked_fill(~fits, -torch.inf).topk(min(count // 2, len(one))).indices
        left = fits.clone()
        left[best] = False
        number = min(count - len(best), len(one))
        drawn = torch.rand(len(one)).to(one.device).masked_fill(~left, -1.0).topk(number).indices
        places = torch.cat([best[fits[best]], drawn[left[drawn]]])
        chosen.append(places + image * len(one))
    return torch.cat(chosen)


def match_levels(key: str, student: nn.Module, source: Any) -> list[tuple[int, int]]:
    """(student level, teacher level) of equal relative stride and equal anchors; the rest takes no part."""
    for name, model in (('student', student), ('teacher', source.model)):
        if not isinstance(getattr(model, 'rpn_head', None), RPNHead):
            raise ConfigError(f'{key}: the {name}, {type(model).__name__}, has '
                              f'{type(getattr(model, "rpn_head", None)).__name__} as its rpn_head, an anchor-based '
                              f'RPNHead is needed; {key}=None leaves the stage out')
    ours, theirs, scale = student.rpn_head, source.model.rpn_head, source.scale_factor
    if ours.use_sigmoid_cls != theirs.use_sigmoid_cls:
        raise ConfigError(f'{key}: one RPN scores with a sigmoid, the other with a softmax; '
                          'set rpn_head.loss_cls.use_sigmoid alike')
    pairs = []
    for i, stride in enumerate(ours.prior_generator.strides):
        for j, other in enumerate(theirs.prior_generator.strides):
            if tuple(other) == tuple(scale * s for s in stride):
                anchors = ours.prior_generator.base_anchors[i] * scale
                others = theirs.prior_generator.base_anchors[j]
                if anchors.shape != others.shape or not torch.allclose(anchors, others):
                    raise ConfigError(f'{key}: anchors differ at student stride {tuple(stride)}, teacher stride '
                                      f'{tuple(other)}, teacher.scale_factor {scale}: {_boxes(anchors)} (student, '
                                      f'scaled) against {_boxes(others)}; use the same rpn_head.anchor_generator, or '
                                      f'{key}=None leaves the stage out')
                pairs.append((i, j))
    return pairs


def _boxes(anchors: Tensor) -> str:
    sizes = [f'{w:g}x{h:g}' for w, h in (anchors[:, 2:] - anchors[:, :2]).round(decimals=1).tolist()]
    return f'{len(sizes)} a place of {", ".join(sizes[:4])}' + (' ...' if len(sizes) > 4 else '')
