"""What a two-stage network proposes on a batch: RoIs for both networks where labels are missing, and so sampled ones.
"""
import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from .ensemble_pass import EnsemblePass
from .layers import box_heads
from .passes import Pass


@torch.no_grad()
def proposals(found: Pass | EnsemblePass, count: int, stages: int) -> list[Tensor]:
    """RoIs of each R-CNN stage, in the network's own pixels.

    Stage 0: the best ``count`` proposals of each image after the RPN's own non-maximum suppression, of an ensemble the
    best ``count / M`` of each of M members. A cascade's later stages look at what the network's stage before (or its
    last) made of them, each box moved for its likeliest class.

    Args:
        found: what the network says of the batch.
        count: at most so many for each image.
        stages: how many R-CNN stages the RoIs are for.

    Returns:
        One (R, 5) of (image, x1, y1, x2, y2) for each stage.
    """
    rois, last = [_first(found, count)], len(box_heads(found.model)) - 1
    for stage in range(stages - 1):
        rois.append(_refined(found, min(stage, last), rois[-1]))
    return rois


def _first(found: Pass | EnsemblePass, count: int) -> Tensor:
    if isinstance(found, EnsemblePass):
        share = -(-count // len(found.passes))
        return torch.cat([_first(one, share) for one in found.passes])
    return torch.cat([torch.cat([boxes.new_full((len(boxes), 1), image), boxes], 1)
                      for image, boxes in enumerate(boxes[:count] for boxes in found.proposed())])


def _refined(found: Pass | EnsemblePass, stage: int, rois: Tensor) -> Tensor:
    answer, head = found.rcnn_at(stage, rois), box_heads(found.model)[stage]
    classes = answer['cls_score'][:, :-1].argmax(1)  # (R,)
    moved = []
    for image, size in enumerate(found.image_sizes()):
        mine = rois[:, 0] == image
        boxes = head.regress_by_class(rois[mine, 1:], classes[mine], answer['bbox_pred'][mine], dict(img_shape=size))
        moved.append(torch.cat([rois[mine, :1], get_box_tensor(boxes)], 1))
    return torch.cat(moved)
