"""Losses of dense heads with targets of their own, weighed by the score of the object that each prior serves."""
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, PAAHead, RTMDetHead, TOODHead, YOLOXHead
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..tap import replaced
from .batched_paa import BatchedPAAHead

EPSILON = torch.finfo(torch.float32).eps  # MMDetection adds it to divisors


@dataclass(frozen=True)
class Kind:
    """How a head's losses are made.

    Attributes:
        owners: the classes whose own methods these must be.
        targets: the method that decides: 'get_targets' for a batch, '_get_targets_single' for an image.
        priors, positives, sides: losses with a row for each prior, for each positive, and for each of a positive's four
            sides.
        by_level: they are computed level by level, by ``loss_by_feat_single``.
    """

    owners: tuple[type, ...]
    targets: str
    priors: tuple[str, ...] = ('loss_cls',)
    positives: tuple[str, ...] = ('loss_bbox', 'loss_centerness')
    sides: tuple[str, ...] = ()
    by_level: bool = False

    def fits(self, head: nn.Module) -> bool:
        """Whether the head, maybe of a subclass, computes targets and losses as one of the owners does."""
        methods = ('loss_by_feat', self.targets) + (('loss_by_feat_single',) if self.by_level else ())
        return isinstance(head, self.owners) and all(
            any(getattr(type(head), name) is getattr(owner, name) for owner in self.owners) for name in methods)


KINDS = (
    Kind((PAAHead, BatchedPAAHead), '_get_targets_single'),
    Kind((TOODHead,), 'get_targets', priors=('loss_cls', 'initial_loss_cls'), positives=('loss_bbox',), by_level=True),
    Kind((RTMDetHead,), 'get_targets', positives=('loss_bbox',), by_level=True),
    Kind((GFLHead,), 'get_targets', positives=('loss_bbox',), sides=('loss_dfl',), by_level=True),
    Kind((ATSSHead,), 'get_targets', by_level=True),
    Kind((FCOSHead,), 'get_targets'),
    Kind((YOLOXHead,), '_get_targets_single', priors=('loss_obj',), positives=('loss_cls', 'loss_bbox', 'loss_l1')))
"""A head of your own that derives from one of these and changes neither targets nor losses is known too."""


def kind_of(head: nn.Module) -> Kind | None:
    """How the head's losses are made; None: in a way that is not known here."""
    return next((kind for kind in KINDS if kind.fits(head)), None)


@contextmanager
def scored_losses(head: nn.Module, kind: Kind, power: float) -> Iterator[None]:
    """For the block, each loss of ``head`` is a sum over rows that count ``score ** power`` of their object::

        L = (1 / divisor) sum_i s_i^power l_i        s_i = 1 for what serves no object

    with ``l_i`` and the divisor as they are without scores (soft targets, IoU weights, counts). It holds for any loss
    module of MMDetection's kind: the rows come from ``reduction_override='none'``. On a batch without
    ``gt_instances.scores`` the head's own call is made.
    """
    factors = _Factors(head, kind, power)
    with ExitStack() as stack:
        if hasattr(head, 'sampler'):
            stack.enter_context(replaced(head.sampler, sample=factors.of_sampler(head.sampler.sample)))
        wrapper = factors.of_image if kind.targets == '_get_targets_single' else factors.of_batch
        stack.enter_context(replaced(head, **{kind.targets: wrapper(getattr(head, kind.targets))}))
        if kind.by_level:
            stack.enter_context(replaced(head, loss_by_feat_single=factors.of_level(head.loss_by_feat_single)))
        for rows, names in (('priors', kind.priors), ('positives', kind.positives), ('sides', kind.sides)):
            for name in names:
                module = getattr(head, name, None)
                if module is not None:
                    stack.enter_context(replaced(module, forward=factors.of_loss(module, rows)))
        yield


class _Factors:
    """``score ** power`` of each prior of a batch, while its losses are computed.

    Attributes:
        levels: (N, P_l) each, or one (N, P) where losses are not computed level by level; None: no object has a score.
        served: the priors that serve an object, of the same shapes.
    """

    def __init__(self, head: nn.Module, kind: Kind, power: float) -> None:
        self.head, self.kind, self.power = head, kind, power
        self.levels: list[Tensor] | None = None
        self.served: list[Tensor] = []
        self._sampled: list[Tensor | None] = []  # of the objects of an image's positives
        self._images: list[tuple[Tensor, Tensor]] = []
        self._level, self._used = 0, False

    # -- who serves which object ------------------------------------------------------------------------------------
    def of_sampler(self, sample: Callable) -> Callable:
        signature = inspect.signature(sample)

        @functools.wraps(sample)
        def noting(*args: Any, **kwargs: Any) -> Any:
            result = sample(*args, **kwargs)
            scores = signature.bind(*args, **kwargs).arguments['gt_instances'].get('scores')
            self._sampled.append(None if scores is None else scores[result.pos_assigned_gt_inds])
            return result
        return noting

    def _factor(self, served: Tensor, scores: Tensor) -> Tensor:
        """(P,) from the scores (p,) of the objects that ``served`` priors serve, in the order of the priors."""
        factor = torch.ones_like(served, dtype=torch.float32)
        factor[served] = scores.float()**self.power
        return factor

    def _served(self, labels: Tensor) -> Tensor:
        return (labels >= 0) & (labels < self.head.num_classes)

    def of_batch(self, get_targets: Callable) -> Callable:
        """``get_targets``, whose result holds labels per level."""
        signature = inspect.signature(get_targets)

        @functools.wraps(get_targets)
        def noting(*args: Any, **kwargs: Any) -> Any:
            self._sampled, self._level = [], -1
            result = get_targets(*args, **kwargs)
            points = isinstance(self.head, FCOSHead)
            objects = signature.bind(*args, **kwargs).arguments['batch_gt_instances']
            labels = [level.view(len(objects), -1) for level in result[0]] if points else result[1]
            self.served = [self._served(level) for level in labels]
            served = torch.cat(self.served, 1)  # (N, P)
            if points:
                self._sampled = self._of_points(get_targets, signature, args, kwargs, objects, served)
            self.levels = None if all(one is None for one in self._sampled) else list(torch.stack([
                torch.ones_like(row, dtype=torch.float32) if scores is None else self._factor(row, scores)
                for row, scores in zip(served, self._sampled, strict=True)]).split([lb.shape[1] for lb in labels], 1))
            return result
        return noting

    @staticmethod
    def _of_points(get_targets: Callable, signature: inspect.Signature, args: tuple, kwargs: dict,
                   objects: list[InstanceData], served: Tensor) -> list[Tensor | None]:
        """FCOS assigns by position and size alone: with the objects' numbers as labels it says whom a point serves."""
        if not any('scores' in one for one in objects):
            return [None] * len(objects)
        numbered = [InstanceData(bboxes=one.bboxes, labels=torch.arange(len(one), device=one.labels.device))
                    for one in objects]
        bound = signature.bind(*args, **kwargs)
        bound.arguments['batch_gt_instances'] = numbered
        owners = torch.cat([level.view(len(objects), -1) for level in get_targets(*bound.args, **bound.kwargs)[0]], 1)
        return [one.scores[owner[row]] if 'scores' in one else None
                for one, owner, row in zip(objects, owners, served)]

    def of_image(self, single: Callable) -> Callable:
        """``_get_targets_single``, whose result begins with labels (P,), or with the mask of positives (P,)."""
        @functools.wraps(single)
        def noting(*args: Any, **kwargs: Any) -> Any:
            if self._used:
                self._images, self._used = [], False
            self._sampled = []
            result = single(*args, **kwargs)
            served = result[0] if result[0].dtype == torch.bool else self._served(result[0])
            scores = self._sampled[0] if self._sampled else None  # an image without objects may sample nothing
            self._images.append((served, None if scores is None else self._factor(served, scores)))
            return result
        return noting

    # -- the losses -------------------------------------------------------------------------------------------------
    def of_level(self, loss: Callable) -> Callable:
        @functools.wraps(loss)
        def counting(*args: Any, **kwargs: Any) -> Any:
            self._level += 1
            return loss(*args, **kwargs)
        return counting

    def of_loss(self, module: nn.Module, rows: str) -> Callable:
        """The module's ``forward``; ``rows`` says what its rows are."""
        forward, signature = module.forward, inspect.signature(module.forward)

        @functools.wraps(forward)
        def weighed(*args: Any, **kwargs: Any) -> Tensor:
            asked = signature.bind(*args, **kwargs).arguments
            if asked.get('reduction_override') is not None:  # costs from which an assignment is made
                return forward(*args, **kwargs)
            if rows == 'priors':
                self._begin(asked)
            factor = self._rows(rows)
            if factor is None:
                return forward(*args, **kwargs)
            asked.update(asked.pop('kwargs', {}))
            divisor = asked.pop('avg_factor', None)
            parts = forward(**asked, reduction_override='none')  # (rows,) or (rows, ..)
            if len(parts) != len(factor):
                raise RuntimeError(f'{type(module).__name__} has {len(parts)} rows, {len(factor)} {rows} were expected')
            parts = parts * factor.to(parts).view(-1, *[1] * (parts.dim() - 1))
            if module.reduction == 'sum':
                return parts.sum()
            return parts.mean() if divisor is None else parts.sum() / (divisor + EPSILON)
        return weighed

    def _begin(self, asked: dict[str, Any]) -> None:
        """The first loss of a batch whose images were noted one by one."""
        if self.kind.targets != '_get_targets_single':
            return
        self._used = True
        served = torch.cat([served for served, _ in self._images])  # (N P,)
        factors = None if all(factor is None for _, factor in self._images) else torch.cat([
            torch.ones_like(served, dtype=torch.float32) if factor is None else factor
            for served, factor in self._images])
        if isinstance(self.head, PAAHead):  # some positives became background meanwhile
            served = self._served(list(asked.values())[1])
            factors = None if factors is None else factors.where(served, 1.0)
        self.levels, self.served = None if factors is None else [factors], [served]

    def _rows(self, rows: str) -> Tensor | None:
        if self.levels is None:
            return None
        here = slice(self._level, self._level + 1) if self.kind.by_level else slice(None)
        factor, served = (torch.cat([level.flatten() for level in part[here]]) for part in (self.levels, self.served))
        if rows == 'priors':
            return factor
        return factor[served] if rows == 'positives' else factor[served].repeat_interleave(4)
