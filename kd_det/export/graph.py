"""The network as it is exported: images in, scores and decoded boxes of all priors out, no NMS."""
import copy
from types import MethodType

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import TOODHead
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..heads.dense_outputs import training_format
from .head_outputs import outputs_of


class ExportedDetector(nn.Module):
    """(1, 3, H, W) normalised images -> scores (1, P, C) and boxes (1, P, 4), xyxy in input pixels.

    Scores of what the head's own threshold and top k drop are 0. The priors of the fixed size are constants.

    Args:
        model: a detector in eval mode.
        size: (height, width) of the input.

    Raises:
        ConfigError: the head is not in the table, see :func:`.head_outputs.outputs_of`.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.line = outputs_of(model)
        self.model = model = copy.deepcopy(model)  # what is bent for the exporter is not what it is verified against
        head = model.bbox_head
        with torch.no_grad():
            maps = head(model.extract_feat(torch.zeros(1, 3, *size)))[0]
        sizes = [level.shape[-2:] for level in maps]
        priors = [get_box_tensor(level) for level in head.prior_generator.grid_priors(sizes, device='cpu')]
        counts = [len(level) // (h * w) for level, (h, w) in zip(priors, sizes)]
        self.anchors = counts
        for i, (level, stride) in enumerate(zip(priors, head.prior_generator.strides)):
            self.register_buffer(f'priors_{i}', level.float(), persistent=False)
            stride = float(stride[0] if isinstance(stride, (tuple, list)) else stride)
            self.register_buffer(f'strides_{i}', torch.full((len(level),), stride), persistent=False)
        if isinstance(head, TOODHead):
            head.deform_sampling = MethodType(_sampled, head)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        head = self.model.bbox_head
        with training_format(head):
            outputs = head(self.model.extract_feat(images))
        factors = outputs[2] if len(outputs) > 2 else [None] * len(outputs[0])
        scores, boxes = [], []
        for i, (z, rows, q) in enumerate(zip(outputs[0], outputs[1], factors)):
            count = self.anchors[i]
            kept = self._scores(_rows(z, count), None if q is None else _rows(q, count))
            scores.append(kept)
            found = self.line.decode(head, _rows(rows, count), getattr(self, f'priors_{i}'),
                                     getattr(self, f'strides_{i}'))
            boxes.append(get_box_tensor(found))
        return torch.cat(scores)[None], torch.cat(boxes)[None]

    def _scores(self, z: Tensor, q: Tensor | None) -> Tensor:
        """(n, C) of one level, 0 where the head would drop it."""
        cfg = self.model.bbox_head.test_cfg
        scores, compared = self.line.score(z, q)
        top = cfg.get('nms_pre', -1)
        keep = compared > cfg.get('score_thr', 0)
        if self.line.best_class:
            keep = keep & (torch.arange(scores.shape[1]) == scores.argmax(1, keepdim=True))
        if self.line.top == 'pairs' and 0 < top < compared.numel():
            keep = keep & (compared >= compared.flatten().topk(top).values[-1])
        elif self.line.top == 'priors' and 0 < top < len(compared):
            best = compared.amax(1, keepdim=True)  # (n, 1)
            keep = keep & (best >= best.flatten().topk(top).values[-1])
        return torch.where(keep, scores, torch.zeros_like(scores))


def _rows(level: Tensor, anchors: int) -> Tensor:
    """(1, A k, h, w) -> (h w A, k), MMDetection's order of priors."""
    return level[0].permute(1, 2, 0).reshape(-1, level.shape[1] // anchors).float()


def _sampled(self: nn.Module, feat: Tensor, offset: Tensor) -> Tensor:
    """TOOD's deformable 1x1 convolution with weights 1: each channel (1, c, h, w) is read at its own offsets.

    The same as bilinear sampling with zeros outside, which is a standard ONNX operator (GridSample).
    """
    batch, channels, height, width = feat.shape
    moved = offset.reshape(batch * channels, 2, height, width)  # dy, dx
    y = torch.arange(height, dtype=feat.dtype)[:, None] + moved[:, 0]
    x = torch.arange(width, dtype=feat.dtype) + moved[:, 1]
    # to -1 ... 1 between the centres of the border pixels; a map of one pixel has no such range
    grid = torch.stack([2 * (x + 0.5) / width - 1, 2 * (y + 0.5) / height - 1], -1)
    found = F.grid_sample(feat.reshape(batch * channels, 1, height, width), grid, padding_mode='zeros',
                          align_corners=False)
    return found.reshape(batch, channels, height, width)
