"""Losses of ground truth weighed by its scores: a pseudo-label that the teacher is half sure of counts half."""
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn

from ..errors import ConfigError
from ..tap import replaced
from .scored_losses import KINDS, kind_of, scored_losses


@contextmanager
def weighed_by_score(model: nn.Module, power: float = 1.0) -> Iterator[None]:
    """For the block, the losses of a positive prior count ``score ** power`` of its ground truth
    (``gt_instances.scores``; 1 where there are none)::

        label weight, box weight of prior i  *=  s_g(i)^power        g(i): the object that it is assigned to

    Divisors are those without scores: heads count positives and samples. What is no object keeps its weight.

    Reached are the RPN, box heads of R-CNN stages, dense heads with ``AnchorHead``'s own targets (RetinaNet, SSD), and
    those of :mod:`kd_det.heads.scored_losses` (ATSS, GFL, PAA, FCOS, RTMDet, TOOD, YOLOX), which weigh positives
    otherwise than by box weights. The methods live in the instances for as long as the block lasts; the model's classes
    and keys stay what they are.

    Raises:
        ConfigError: a dense head or box head that computes targets in a way of its own.
    """
    with ExitStack() as stack:
        for where, head in _heads(model):
            if _has_targets_of(head, BBoxHead, 'get_targets', '_get_targets_single'):
                stack.enter_context(replaced(head, get_targets=_of_rois(head.get_targets, power)))
            elif _has_targets_of(head, AnchorHead, '_get_targets_single'):
                single = _of_anchors(head._get_targets_single, head, power)
                stack.enter_context(replaced(head, _get_targets_single=single))
            elif (kind := kind_of(head)) is not None:
                stack.enter_context(scored_losses(head, kind, power))
            else:
                raise ConfigError(f'ScoreWeightHook: {where} is a {type(head).__name__}, which computes targets in a '
                                  'way of its own; scores can weigh the RPN, R-CNN box heads and the dense heads of '
                                  'RetinaNet, SSD, '
                                  + ', '.join(one.owners[0].__name__.removesuffix('Head') for one in KINDS))
        for sampler in _samplers(model):
            stack.enter_context(replaced(sampler, sample=_noting(sampler.sample)))
        yield


def can_be_weighed(head: nn.Module) -> bool:
    """Whether :func:`weighed_by_score` reaches a dense head."""
    return _has_targets_of(head, AnchorHead, '_get_targets_single') or kind_of(head) is not None


def _has_targets_of(head: nn.Module, kind: type, *methods: str) -> bool:
    """Whether a head is of a kind and computes its targets as that kind does."""
    return isinstance(head, kind) and all(getattr(type(head), name) is getattr(kind, name) for name in methods)


def _heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name in ('rpn_head', 'bbox_head'):
        if getattr(model, name, None) is not None:
            yield name, getattr(model, name)
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is not None:
        heads = roi_head.bbox_head
        yield from ((f'roi_head.bbox_head[{i}]', head) for i, head in
                    enumerate(heads if isinstance(heads, nn.ModuleList) else [heads]))


def _samplers(model: nn.Module) -> Iterator[Any]:
    for part in (getattr(model, name, None) for name in ('rpn_head', 'bbox_head')):
        if part is not None and kind_of(part) is None:
            yield part.sampler
    if getattr(model, 'roi_head', None) is not None:
        samplers = model.roi_head.bbox_sampler
        yield from samplers if isinstance(samplers, (list, tuple)) else [samplers]


def _noting(sample: Callable) -> Callable:
    """A sampler's ``sample`` that notes the score of each positive's object."""
    signature = inspect.signature(sample)

    def noting(*args: Any, **kwargs: Any) -> Any:
        result = sample(*args, **kwargs)
        objects = signature.bind(*args, **kwargs).arguments['gt_instances']
        scores = objects.get('scores')
        result.pos_scores = None if scores is None else scores[result.pos_assigned_gt_inds]  # (P,)
        return result
    return noting


def _of_rois(get_targets: Callable, power: float) -> Callable:
    """A box head's ``get_targets``: in each image positives come first."""
    signature = inspect.signature(get_targets)

    def weighed(*args: Any, **kwargs: Any) -> tuple:
        labels, label_weights, targets, weights = get_targets(*args, **kwargs)
        results = signature.bind(*args, **kwargs).arguments['sampling_results']
        factors = []
        for result in results:
            factor = result.priors.new_ones(len(result.pos_inds) + len(result.neg_inds))
            if result.pos_scores is not None:
                factor[:len(result.pos_inds)] = result.pos_scores.to(factor)**power
            factors.append(factor)
        if isinstance(labels, (list, tuple)):
            return (labels, [w * f for w, f in zip(label_weights, factors)], targets,
                    [w * f[:, None] for w, f in zip(weights, factors)])
        factor = torch.cat(factors)  # (R,)
        return labels, label_weights * factor, targets, weights * factor[:, None]
    return weighed


def _of_anchors(single: Callable, head: nn.Module, power: float) -> Callable:
    """A dense head's targets of one image: positives in the order of their anchors."""
    def weighed(*args: Any, **kwargs: Any) -> tuple:
        labels, label_weights, targets, weights, *rest = single(*args, **kwargs)
        scores: Tensor | None = rest[-1].pos_scores
        if scores is not None and len(scores):
            places = ((labels >= 0) & (labels < head.num_classes)).nonzero().flatten()  # (P,)
            factor = scores.to(label_weights)**power
            label_weights = label_weights.index_put((places,), label_weights[places] * factor)
            weights = weights.index_put((places,), weights[places] * factor[:, None])
        return (labels, label_weights, targets, weights, *rest)
    return weighed
