"""Any assigner, with regions in which what is no object is not background either."""
import inspect
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from torch import Tensor, nn

from ..errors import ConfigError

DEAF = {'FCOSHead': 'has no assigner', 'YOLOXHead': 'takes every prior that is not positive for background',
        'VFNetHead': 'takes every prior that is not positive for background'}
"""Heads, and their subclasses, whose loss does not ask which priors an assigner ignores."""


class IgnoringAssigner(BaseAssigner):
    """What ``assigner`` decides, except that negatives inside ignored regions take no part.

    MMDetection's own ``ignore_iof_thr`` is read by two assigners, and does nothing on an image that has ignored regions
    and no object. Regions come from annotations with ``iscrowd: 1``: crowds, or the middling scores of pseudo-labels.

    Args:
        assigner (dict): the assigner that the config has.
        iof (float): a prior takes no part if more than this part of its area lies in one ignored region, in (0, 1).
        points (bool): priors are points (RTMDet), which take no part inside a region.

    :data:`DEAF` heads do not ask which priors are ignored; see :func:`check_ignoring`.
    """

    def __init__(self, assigner: dict, iof: float = 0.5, points: bool = False) -> None:
        if isinstance(iof, bool) or not isinstance(iof, (int, float)) or not 0 < iof < 1:
            raise ConfigError(f'assigner.iof: found {iof!r}; a number in (0, 1) is expected')
        if not isinstance(points, bool):
            raise ConfigError(f'assigner.points: found {points!r}; True or False is expected')
        self.assigner, self.iof, self.points = TASK_UTILS.build(assigner), float(iof), points

    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """As the assigner, whose arguments these are; ``gt_inds`` (P,) of negatives in ignored regions becomes -1."""
        result = self.assigner.assign(*args, **kwargs)
        found = inspect.signature(self.assigner.assign).bind(*args, **kwargs).arguments
        ignored = found.get('gt_instances_ignore')
        if ignored is not None and len(ignored):
            inside = self._inside(get_box_tensor(found['pred_instances'].priors), get_box_tensor(ignored.bboxes))
            result.gt_inds = torch.where(inside & (result.gt_inds == 0), -1, result.gt_inds)
        return result

    def _inside(self, priors: Tensor, regions: Tensor) -> Tensor:
        """(P,) bool."""
        if self.points:
            x, y = priors[:, 0, None], priors[:, 1, None]
            return ((x > regions[:, 0]) & (y > regions[:, 1]) & (x < regions[:, 2]) & (y < regions[:, 3])).any(1)
        return bbox_overlaps(priors.to(regions), regions, mode='iof').amax(1) > self.iof

    def __getattr__(self, name: str) -> Any:
        """Heads read settings of their assigner (``topk``, ``alpha`` ...)."""
        if name == 'assigner':
            raise AttributeError(name)
        return getattr(self.assigner, name)


def check_ignoring(model: nn.Module) -> None:
    """Refuse a detector that has an :class:`IgnoringAssigner` and a head that does not ask it: what lies in ignored
    regions would be background there, and nothing would say so.

    Raises:
        ConfigError: naming the head.
    """
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        deaf = next((base.__name__ for base in type(head).__mro__ if base.__name__ in DEAF), None)
        if deaf and _named(getattr(head, 'train_cfg', None)):
            raise ConfigError(f'{name}.train_cfg: IgnoringAssigner, and {type(head).__name__} {DEAF[deaf]}, so that '
                              'ignored regions would teach background; leave it out and label without an ignore band '
                              '(kd-det pseudo-label --ignore-from 1), or take another head')


def _named(cfg: Any) -> bool:
    """Whether an :class:`IgnoringAssigner` stands anywhere in a config."""
    if isinstance(cfg, dict):
        return cfg.get('type') in ('IgnoringAssigner', IgnoringAssigner) or any(map(_named, cfg.values()))
    return isinstance(cfg, (list, tuple)) and any(map(_named, cfg))
