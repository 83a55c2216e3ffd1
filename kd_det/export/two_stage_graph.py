"""Faster R-CNN as it is exported: images in, scores and decoded boxes of all proposals out, in sizes that are fixed.

The NMS between the stages is ONNX's own operator. What it keeps is of no fixed number, so it is turned into a mask over
all candidates, and the best ``max_per_img`` of those that it keeps go on; scores of places that are left over are 0.
"""
import copy

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead, SABLHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from ..errors import ConfigError


def check_two_stage(model: nn.Module) -> None:
    """Raises :class:`ConfigError`, with the reason, for detectors of two stages that are not of Faster R-CNN's kind."""
    kind, roi_head = type(model).__name__, model.roi_head
    rpn, head = getattr(model, 'rpn_head', None), getattr(roi_head, 'bbox_head', None)
    extractor = getattr(roi_head, 'bbox_roi_extractor', None)
    for wrong, reason in (
            (getattr(roi_head, 'with_mask', False), 'its masks need a second pass over the boxes that NMS leaves'),
            (type(roi_head) is not StandardRoIHead,
             f'{type(roi_head).__name__} is not Faster R-CNN\'s StandardRoIHead'),
            (type(rpn) is not RPNHead, f'{type(rpn).__name__} is not the RPNHead with anchors'),
            (not isinstance(head, BBoxHead) or isinstance(head, SABLHead),
             f'{type(head).__name__} does not encode boxes as deltas of proposals'),
            (getattr(head, 'custom_activation', False), f'{type(head).__name__} scores with an activation of its own'),
            (not isinstance(extractor, SingleRoIExtractor), f'{type(extractor).__name__} is not SingleRoIExtractor')):
        if wrong:
            raise ConfigError(f'--onnx: {kind}: {reason}; of detectors with two stages Faster R-CNN alone is exported. '
                              'The plain checkpoint has no such limit')
    layer = extractor.roi_layers[0]
    if getattr(layer, 'pool_mode', 'avg') != 'avg' or not hasattr(layer, 'aligned'):
        raise ConfigError(f'--onnx: {kind}: roi_layer {type(layer).__name__} is not RoIAlign with averages')
    nms_type = model.test_cfg.rpn.nms.get('type', 'nms')
    if nms_type != 'nms':
        raise ConfigError(f'--onnx: model.test_cfg.rpn.nms.type {nms_type!r}; the graph knows \'nms\' alone')


class ExportedTwoStage(nn.Module):
    """(1, 3, H, W) normalised images and (2,) their height and width without padding -> scores (1, P, C) and boxes.

    Boxes are xyxy in input pixels, (1, P, C, 4) where each class has its own, else (1, P, 4). P is the number of
    proposals that the second stage sees at most. Scores up to the threshold of the second stage are 0.

    Args:
        model: a Faster R-CNN in eval mode.
        size: (height, width) of the input.

    Raises:
        ConfigError: see :func:`check_two_stage`.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        check_two_stage(model)
        self.model = model = copy.deepcopy(model)
        with torch.no_grad():
            maps = model.rpn_head(model.extract_feat(torch.zeros(1, 3, *size)))[0]
        anchors = model.rpn_head.prior_generator.grid_priors([level.shape[-2:] for level in maps], device='cpu')
        self.levels = len(anchors)
        for i, level in enumerate(anchors):
            self.register_buffer(f'anchors_{i}', get_box_tensor(level).float(), persistent=False)

    def forward(self, images: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.extract_feat(images)
        limits = torch.stack([shape[1], shape[0], shape[1], shape[0]])  # (4,)
        proposals, alive = self._proposals(features, limits)
        rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], 1)  # (P, 5)
        roi_head = self.model.roi_head
        pooled = self._pooled(features, rois)
        if roi_head.with_shared_head:
            pooled = roi_head.shared_head(pooled)
        logits, deltas = roi_head.bbox_head(pooled)
        scores = logits.softmax(-1)[:, :-1] * alive[:, None]  # (P, C)
        threshold = self.model.test_cfg.rcnn.get('score_thr', 0.0)
        scores = torch.where(scores > threshold, scores, torch.zeros_like(scores))
        boxes = _decoded(roi_head.bbox_head.bbox_coder, proposals, deltas, limits)
        if boxes.shape[1] > 4:
            boxes = boxes.reshape(boxes.shape[0], -1, 4)  # (P, C, 4)
        return scores[None], boxes[None]

    def _proposals(self, features: tuple, limits: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 4) boxes of the RPN after NMS, and (P,) 1 for those that there are, 0 for places that are left over."""
        head, cfg = self.model.rpn_head, self.model.test_cfg.rpn
        boxes, scores, levels = [], [], []
        for i, (logits, deltas) in enumerate(zip(*head(features))):
            rows = _rows(logits, head.cls_out_channels)  # (h w A, 1 or 2)
            own = rows.sigmoid()[:, 0] if head.use_sigmoid_cls else rows.softmax(-1)[:, 0]
            moves, anchors = _rows(deltas, 4), getattr(self, f'anchors_{i}')
            if 0 < cfg.nms_pre < own.shape[0]:
                own, best = own.topk(cfg.nms_pre)
                moves, anchors = moves[best], anchors[best]
            boxes.append(_decoded(head.bbox_coder, anchors, moves, limits))
            scores.append(own)
            levels.append(torch.full_like(own, float(i)))
        box, score, level = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
        least = cfg.get('min_bbox_size', -1)
        if least >= 0:
            score = torch.where((box[:, 2:] - box[:, :2]).amin(1) > least, score, torch.full_like(score, -1.0))
        # each level by itself: moved apart by more than any coordinate
        apart = box + (level * (box.max() + 1))[:, None]
        kept = nms(apart, score, float(cfg.nms.iou_threshold))
        chosen = torch.zeros_like(score).scatter(0, kept, torch.ones_like(kept, dtype=score.dtype))
        ranked = torch.where(chosen > 0, score, torch.full_like(score, -1.0))
        best, places = ranked.topk(min(int(cfg.max_per_img), ranked.shape[0]))
        return box[places], (best >= 0).to(score.dtype)

    def _pooled(self, features: tuple, rois: Tensor) -> Tensor:
        """(P, c, k, k): each RoI from the level of its size; every level is asked for all of them, and one counts."""
        extractor = self.model.roi_head.bbox_roi_extractor
        count = extractor.num_inputs
        level = extractor.map_roi_levels(rois, count)
        total = 0
        for i, layer in enumerate(extractor.roi_layers[:count]):
            found = roi_align(features[i], rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio or -1,
                              layer.aligned)
            total = total + torch.where((level == i)[:, None, None, None], found, torch.zeros_like(found))
        return total


def _decoded(coder: nn.Module, priors: Tensor, deltas: Tensor, limits: Tensor) -> Tensor:
    """(n, 4 k) boxes of deltas (n, 4 k), cut at the image's border where the coder does."""
    boxes = get_box_tensor(coder.decode(priors, deltas))
    if not getattr(coder, 'clip_border', True):
        return boxes
    wide = limits.repeat(boxes.shape[1] // 4)
    return torch.minimum(boxes.clamp(min=0), wide)


def _rows(level: Tensor, columns: int) -> Tensor:
    """(1, A k, h, w) -> (h w A, k), MMDetection's order of anchors."""
    return level[0].permute(1, 2, 0).reshape(-1, columns)
