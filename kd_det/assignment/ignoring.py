"""Any assigner, with regions in which what is no object is not background either."""
import inspect
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from torch import Tensor

from ..errors import ConfigError


class IgnoringAssigner(BaseAssigner):
    """What ``assigner`` decides, except that negatives inside ignored regions take no part.

    MMDetection's own ``ignore_iof_thr`` is read by two assigners, and does nothing on an image that has ignored regions
    and no object. Regions come from annotations with ``iscrowd: 1``: crowds, or the middling scores of pseudo-labels.

    Args:
        assigner (dict): the assigner that the config has.
        iof (float): a prior takes no part if more than this part of its area lies in one ignored region, in (0, 1).
        points (bool): priors are points (FCOS, RTMDet, YOLOX), which take no part inside a region.
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
