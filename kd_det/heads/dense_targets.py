"""What a dense head's own loss decided about each prior: positive or not, and how much its label counts."""
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import (
    AnchorHead,
    ATSSHead,
    AutoAssignHead,
    DDODHead,
    FCOSHead,
    FreeAnchorRetinaHead,
    FSAFHead,
    GFLHead,
    LADHead,
    PAAHead,
    RetinaHead,
    RetinaSepBNHead,
    RTMDetHead,
    TOODHead,
    VFNetHead,
    YOLOFHead,
    YOLOXHead,
)
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ..errors import ConfigError

Note = tuple[Tensor, Tensor | None]


@dataclass
class DenseTargets:
    """The label assignment of N images with P priors each, levels one after the other (:class:`DenseOutputs`' order).

    Its normaliser means the same for every head. Theirs do not: they divide by the local count (RetinaNet, PAA), by the
    count over ranks (ATSS, GFL, FCOS, DDOD, YOLOX; samplers count at least one positive an image) or by sums of soft
    scores (TOOD, RTMDet).

    Attributes:
        positive: (N, P) bool, priors that serve an object.
        label_weights: (N, P) float32, of the assigner: 0 outside the image and where it ignores the prior, else 1 (or
            ``train_cfg.pos_weight`` on positives). FCOS and YOLOX ignore nothing: 1 everywhere.
        level_sizes: priors per level, which add up to P.
        box: the same for the box branch; another assignment in DDOD alone.
    """

    positive: Tensor
    label_weights: Tensor
    level_sizes: list[int]
    box: 'DenseTargets' = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.box is None:
            self.box = self

    @cached_property
    def normaliser(self) -> Tensor:
        """Positives of the batch, averaged over ranks, at least 1. Every rank has to ask for it, in the same order."""
        return reduce_mean(self.positive.sum().float()).clamp(min=1)

    def per_level(self, values: Tensor) -> tuple[Tensor, ...]:
        """(N, P, ...) -> (N, P_l, ...) of each level."""
        return values.split(self.level_sizes, 1)


class Reader(NamedTuple):
    """Where a head decides, and what to note there while its loss runs.

    Attributes:
        taps: branch -> (owner, method) of the calls to listen to: 'cls', and 'box' where it has an assignment of its
            own.
        note: result and arguments (by name) of such a call -> labels, image after image and in each level after level,
            and weights of that shape (None: 1 everywhere), or None for a call that decides nothing. The background is
            the class ``num_classes``. Notes are all that is kept of a call, so that its arguments can be freed.
    """

    taps: Callable[[nn.Module], dict[str, tuple[nn.Module, str]]]
    note: Callable[[Any, dict[str, Any]], Note | None]


def _own(**methods: str) -> Callable[[nn.Module], dict[str, tuple[nn.Module, str]]]:
    return lambda head: {branch: (head, method) for branch, method in methods.items()}


def _by_level(first: int) -> Callable[[Any, dict[str, Any]], Note]:
    """Results whose entries ``first`` and ``first + 1`` are labels and weights, per level (N, P_l)."""
    return lambda result, arguments: (torch.cat(list(result[first]), 1), torch.cat(list(result[first + 1]), 1))


def _of_points(result: Any, arguments: dict[str, Any]) -> Note:
    """FCOS: labels per level, (N P_l,), image by image."""
    images = len(arguments['batch_gt_instances'])
    return torch.cat([level.view(images, -1) for level in result[0]], 1), None


def _of_class_loss(result: Any, arguments: dict[str, Any]) -> Note | None:
    """PAA decides in the middle of its loss, or takes over another's decision: what it hands to its class loss counts.
    Its other calls of that loss, without reduction, are the costs from which it decides.
    """
    _, labels, weights = list(arguments.values())[:3]
    return None if arguments['reduction_override'] else (labels, weights)


def _of_image(result: Any, arguments: dict[str, Any]) -> Note:
    """YOLOX: one call per image, whose result begins with a mask (P,) of positives."""
    return torch.where(result[0], 0, arguments['cls_preds'].shape[1]), None


_ANCHORS = Reader(_own(cls='get_targets'), _by_level(0))
_INSIDE = Reader(_own(cls='get_targets'), _by_level(1))  # the anchors stand before the labels

# the first class that fits counts: subclasses before what they derive from
READERS: tuple[tuple[type, Reader | None], ...] = (
    (VFNetHead, None), (YOLOFHead, None), (FSAFHead, None), (FreeAnchorRetinaHead, None), (AutoAssignHead, None),
    (LADHead, None),
    (PAAHead, Reader(lambda head: {'cls': (head.loss_cls, 'forward')}, _of_class_loss)),
    (DDODHead, Reader(_own(cls='get_cls_targets', box='get_reg_targets'), _by_level(1))),
    (TOODHead, _INSIDE), (RTMDetHead, _INSIDE), (GFLHead, _INSIDE), (ATSSHead, _INSIDE),
    (FCOSHead, Reader(_own(cls='get_targets'), _of_points)),
    (YOLOXHead, Reader(_own(cls='_get_targets_single'), _of_image)),
    (RetinaHead, _ANCHORS), (RetinaSepBNHead, _ANCHORS))
"""How a head's targets are heard; None: it has no hard assignment, or changes it later. Add a head of your own here."""


def reader_of(head: nn.Module, key: str) -> Reader:
    """Raises :class:`ConfigError`, naming ``key``, for a head that is not known here."""
    for cls, reader in READERS:
        if isinstance(head, cls):
            if reader is not None:
                return reader
            break
    if type(head) is AnchorHead:
        return _ANCHORS
    known = sorted(cls.__name__ for cls, reader in READERS if reader is not None)
    raise ConfigError(f'{key}: which priors of {type(head).__name__} are positive cannot be heard; known heads are '
                      f'{", ".join(known)} and their subclasses (others: kd_det.heads.dense_targets.READERS)')


def targets_of(head: nn.Module, noted: dict[str, list[Note | None]], images: int,
               level_sizes: list[int]) -> DenseTargets:
    """From what a :class:`Reader` noted while the head's loss ran.

    Args:
        noted: branch -> the notes of its calls.
        images: N.
        level_sizes: priors per level.
    """
    found = {}
    for branch, notes in noted.items():
        notes = [note for note in notes if note is not None]
        count, expected = sum(labels.numel() for labels, _ in notes), images * sum(level_sizes)
        if count != expected:
            raise RuntimeError(f'{type(head).__name__} decided about {count} priors in its loss; {images} images have '
                               f'{expected}')
        labels = torch.cat([labels.flatten() for labels, _ in notes]).view(images, -1)  # (N, P)
        positive = (labels >= 0) & (labels < head.num_classes)
        weights = torch.cat([labels.new_ones(labels.numel(), dtype=torch.float32) if weight is None else
                             weight.flatten().float() for labels, weight in notes]).view(images, -1)
        found[branch] = DenseTargets(positive, weights, level_sizes)
    found['cls'].box = found.get('box', found['cls'])
    return found['cls']
