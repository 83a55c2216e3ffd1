"""One training step of a very small Faster R-CNN: the proof that a detector can train here."""
from __future__ import annotations

import math
import time

CHANNELS = 8  # 64x64 pixels, 8 base channels: about 0.2 million parameters


def tiny_faster_rcnn() -> dict:
    """A complete Faster R-CNN with FPN: every op that such detectors train with is run."""
    assigner = {'type': 'MaxIoUAssigner', 'pos_iou_thr': 0.5, 'neg_iou_thr': 0.5,
                'min_pos_iou': 0.5}
    sampler = {'type': 'RandomSampler', 'num': 16, 'pos_fraction': 0.5,
               'add_gt_as_proposals': True}
    stage = {'assigner': assigner, 'sampler': sampler, 'allowed_border': -1, 'pos_weight': -1,
             'debug': False}
    proposals = {'nms_pre': 50, 'max_per_img': 50, 'min_bbox_size': 0,
                 'nms': {'type': 'nms', 'iou_threshold': 0.7}}
    heads = {'in_channels': CHANNELS, 'bbox_coder': {'type': 'DeltaXYWHBBoxCoder'},
             'loss_bbox': {'type': 'L1Loss'}}
    return {
        'type': 'FasterRCNN',
        'data_preprocessor': {'type': 'DetDataPreprocessor', 'mean': [128.] * 3, 'std': [64.] * 3},
        'backbone': {'type': 'ResNet', 'depth': 18, 'base_channels': CHANNELS,
                     'stem_channels': CHANNELS},
        'neck': {'type': 'FPN', 'in_channels': [CHANNELS * 2**i for i in range(4)],
                 'out_channels': CHANNELS, 'num_outs': 5},
        'rpn_head': {
            'type': 'RPNHead', 'feat_channels': CHANNELS, **heads,
            'anchor_generator': {'type': 'AnchorGenerator', 'scales': [4], 'ratios': [0.5, 1., 2.],
                                 'strides': [4, 8, 16, 32, 64]},
            'loss_cls': {'type': 'CrossEntropyLoss', 'use_sigmoid': True}},
        'roi_head': {
            'type': 'StandardRoIHead',
            'bbox_roi_extractor': {
                'type': 'SingleRoIExtractor', 'out_channels': CHANNELS,
                'featmap_strides': [4, 8, 16, 32],
                'roi_layer': {'type': 'RoIAlign', 'output_size': 7, 'sampling_ratio': 0}},
            'bbox_head': {
                'type': 'Shared2FCBBoxHead', 'fc_out_channels': 16, 'roi_feat_size': 7,
                'num_classes': 2, **heads,
                'loss_cls': {'type': 'CrossEntropyLoss', 'use_sigmoid': False}}},
        'train_cfg': {'rpn': stage, 'rpn_proposal': proposals, 'rcnn': stage},
        'test_cfg': {'rpn': proposals,
                     'rcnn': {'score_thr': 0.05, 'nms': {'type': 'nms', 'iou_threshold': 0.5},
                              'max_per_img': 10}}}


def train_one_step(device: str) -> tuple[float, float]:
    """Train :func:`tiny_faster_rcnn` for one step on one random image with one box.

    Args:
        device (str): ``'cpu'`` or ``'cuda'``.

    Returns:
        tuple[float, float]: the loss and the seconds of the step.

    Raises:
        ArithmeticError: the loss is not finite, or the step changed no weight.
    """
    import torch
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.config import ConfigDict
    from mmengine.optim import OptimWrapper
    from mmengine.structures import InstanceData

    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(tiny_faster_rcnn())).to(device).train()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9))
    size = (64, 64)
    sample = DetDataSample(
        metainfo={'img_shape': size, 'ori_shape': size, 'pad_shape': size,
                  'scale_factor': (1., 1.)},
        gt_instances=InstanceData(bboxes=torch.tensor([[8., 8., 40., 40.]]),  # (1, 4) x1y1x2y2
                                  labels=torch.tensor([1])))
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)  # (3, 64, 64)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    start = time.perf_counter()
    logs = model.train_step({'inputs': [image], 'data_samples': [sample]}, optimizer)
    loss = float(logs['loss'].detach())  # waits for the device
    seconds = time.perf_counter() - start

    if not math.isfinite(loss):
        raise ArithmeticError(f'the loss of the first training step on {device} is {loss}')
    if all(torch.equal(old, new) for old, new in zip(before, model.parameters())):
        raise ArithmeticError(f'a training step on {device} changed no weight')
    return loss, seconds
