"""What several networks say about one batch, as one."""
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

from ..heads.dense_outputs import DenseOutputs
from .layers import box_heads
from .mixture import any_of, confidence_weights, sigmoid_mixture, softmax_mixture
from .passes import Pass


class EnsemblePass:
    """The passes of an ensemble's members; asked like a :class:`kd_det.sources.passes.Pass`.

    Args:
        passes: of each member.
        maps: of each member, the student's class of each of its classes; None: the same classes.
        weights: (M, C) of members and the student's classes; None: classes take no part, all count alike.
        known: (C,) bool, what somebody knows; None: all.
        confidence: tau of the weights per object, or None.
    """

    def __init__(self, passes: list[Pass], maps: list[list[int] | None], weights: Tensor | None, known: Tensor | None,
                 confidence: float | None) -> None:
        self.passes, self.maps, self.known, self.confidence = passes, maps, known, confidence
        self.partial = any(where is not None for where in maps)
        self._weights = torch.ones(len(passes), 1) if weights is None else weights
        self._dense: DenseOutputs | None = None

    @property
    def model(self) -> nn.Module:
        """The first member's: boxes are in its encoding."""
        return self.passes[0].model

    def image_sizes(self) -> list[tuple[int, int]]:
        return self.passes[0].image_sizes()

    def _members(self) -> Tensor:
        """(M,) of members, whatever the class; adds up to 1."""
        share = self._weights / self._weights.sum(0).clamp(min=1e-12)
        return share.sum(1) / share.sum()

    def mixed(self, answers: list[Tensor], use_sigmoid: bool) -> Tensor:
        """The members' logits (R, C_m (+ 1)) as one, over the student's classes."""
        weights = self._weights.to(answers[0].device).unsqueeze(1)  # (M, 1, C)
        if self.confidence is not None:
            weights = weights * confidence_weights(answers, use_sigmoid, self.confidence)
        return (sigmoid_mixture if use_sigmoid else softmax_mixture)(answers, weights, self.maps)

    def _mean(self, values: list[Tensor]) -> Tensor:
        """The weighted mean of what has no classes."""
        return sum(w * value for w, value in zip(self._members().tolist(), values))

    def rpn(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Scores: the mean of probabilities, or, where members know different classes, that any of them sees an object.
        """
        found = [one.rpn() for one in self.passes]
        head: RPNHead = self.model.rpn_head
        answers = {}
        for level in found[0]:
            scores, deltas = zip(*(answer[level] for answer in found))
            answers[level] = (self._objectness(list(scores), head), self._mean(list(deltas)))
        return answers

    def _objectness(self, maps: list[Tensor], head: nn.Module) -> Tensor:
        if head.use_sigmoid_cls:
            if self.partial:
                return any_of(maps)
            weights = self._members().to(maps[0].device).view(-1, 1, 1)  # (M, 1, 1)
            flat = [level.reshape(-1, 1) for level in maps]
            return sigmoid_mixture(flat, weights, [None] * len(flat)).view_as(maps[0])
        shape, columns = maps[0].shape, head.cls_out_channels
        rows = [level.permute(0, 2, 3, 1).reshape(-1, columns) for level in maps]
        weights = self._members().to(maps[0].device).view(-1, 1, 1).expand(-1, 1, columns - 1)
        mixed = softmax_mixture(rows, weights, [None] * len(rows))
        return mixed.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)

    def rcnn(self, stage: int, asked: int) -> dict[str, Tensor]:
        """``cls_score`` (R, C + 1) over the student's classes and ``bbox_pred``, (R, 4) or (R, 4 C)."""
        return self._mixed_rcnn(stage, [one.rcnn(stage, asked) for one in self.passes])

    def rcnn_of(self, stage: int, asked: int, places: Tensor, alone: bool = False) -> dict[str, Tensor]:
        """:meth:`rcnn` of the RoIs at ``places`` (S,) alone."""
        return self._mixed_rcnn(stage, [one.rcnn_of(stage, asked, places, alone) for one in self.passes])

    def rcnn_at(self, stage: int, rois: Tensor) -> dict[str, Tensor]:
        """The same about any RoIs (R, 5)."""
        return self._mixed_rcnn(stage, [one.rcnn_at(stage, rois) for one in self.passes])

    def _mixed_rcnn(self, stage: int, answers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        mixed = self.mixed([answer['cls_score'] for answer in answers], False)
        agnostic = box_heads(self.model)[stage].reg_class_agnostic
        boxes = [answer['bbox_pred'].float() for answer in answers]
        return dict(cls_score=mixed, bbox_pred=self._mean(boxes) if agnostic else self._by_class(boxes))

    def _by_class(self, boxes: list[Tensor]) -> Tensor:
        """(R, 4 C_m) of each member -> (R, 4 C): for each class the mean over those who know it."""
        classes = self._weights.shape[1]
        share = (self._weights / self._weights.sum(0).clamp(min=1e-12)).to(boxes[0])  # (M, C)
        total = boxes[0].new_zeros(len(boxes[0]), classes, 4)
        for w, box, where in zip(share, boxes, self.maps):
            where = list(range(classes)) if where is None else where
            total[:, where] += w[where, None] * box.reshape(len(box), -1, 4)
        return total.flatten(1)

    def dense_outputs(self) -> DenseOutputs:
        """Logits over the student's classes; decoded boxes and logits of the third branch as means over members. Where
        members know different classes, each counts at a prior by the surest of its own classes: who sees none of its
        objects there has little to say about the box.
        """
        if self._dense is None:
            self._dense = self._mixed_dense([one.dense_outputs() for one in self.passes])
        return self._dense

    def _mixed_dense(self, found: list[DenseOutputs]) -> DenseOutputs:
        images, priors = found[0].logits.shape[:2]
        sigmoid = bool(getattr(self.model.bbox_head, 'use_sigmoid_cls', True))
        mixed = self.mixed([one.logits.flatten(0, 1) for one in found], sigmoid).view(images, priors, -1)
        shares = self._by_prior([one.logits for one in found], sigmoid) if self.partial else self._members().tolist()
        boxes = sum(w.unsqueeze(-1) * one.all_boxes() if self.partial else w * one.all_boxes()
                    for w, one in zip(shares, found))  # (N, P, 4)
        factor = None
        if all(one.factor is not None for one in found):
            factor = sum(w * one.factor for w, one in zip(shares, found))
        lead = found[0]
        return DenseOutputs(lead.head, _already_boxes, mixed, boxes, factor, lead.priors, lead.strides,
                            lead.level_sizes)

    def _by_prior(self, answers: list[Tensor], sigmoid: bool) -> Tensor:
        """(M, N, P), adding up to 1: weight of the member times its largest object probability."""
        sure = [(z.float().sigmoid() if sigmoid else z.float().softmax(-1)[..., :-1]).amax(-1) for z in answers]
        share = torch.stack([w * one for w, one in zip(self._members().tolist(), sure)])
        return share / share.sum(0).clamp(min=torch.finfo(share.dtype).tiny)

    def layer(self, path: str) -> list[Tensor]:
        """The members' levels, concatenated along channels."""
        return [torch.cat(levels, 1 if levels[0].dim() == 4 else -1)
                for levels in zip(*(one.layer(path) for one in self.passes))]


def _already_boxes(head: nn.Module, rows: Tensor, priors: Tensor, strides: Tensor) -> Any:
    return rows
