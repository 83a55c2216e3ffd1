
"""A tiny PAA detector on drawn rectangles: real cost sets, at any stage of training, in seconds."""
from collections.abc import Iterator

import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

CHANNELS, CLASSES = 8, 3


def head_cfg(**changes) -> dict:
    """MMDetection's PAA settings, narrow, without group norm."""
    return dict(dict(
        num_classes=CLASSES, in_channels=CHANNELS, stacked_convs=1, feat_channels=CHANNELS,
        norm_cfg=None,
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8,
                              scales_per_octave=1, strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.] * 4,
                        target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.3),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5),
        train_cfg=ConfigDict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.1, neg_iou_thr=0.1, min_pos_iou=0,
                          ignore_iof_thr=-1),
            allowed_border=-1, pos_weight=-1, debug=False)), **changes)


class TinyPAA(nn.Module):
    """Five convolutions in place of backbone and neck."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 4, 1), nn.ReLU(),
                                  nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1))
        self.down = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1) for _ in range(4))
        self.head = head

    def forward(self, images: Tensor) -> tuple:
        features = [self.stem(images)]  # (N, C, H / 8, W / 8)
        for layer in self.down:
            features.append(layer(features[-1].relu()))
        return self.head(features)


def scenes(counts: list[int], size: int, generator: torch.Generator) -> tuple:
    """Images (N, 3, size, size) with the given number of rectangles each, ground truths, metas."""
    images = 0.2 * torch.rand(len(counts), 3, size, size, generator=generator)
    gts = []
    for image, count in zip(images, counts):
        sides = torch.exp(2.5 * torch.rand(count, 2, generator=generator) + 2.5)  # 12 to 148 px
        sides = sides.clamp(max=0.9 * size)
        corner = torch.rand(count, 2, generator=generator) * (size - sides)
        boxes = torch.cat([corner, corner + sides], 1)  # (count, 4), xyxy
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        for (x1, y1, x2, y2), label in zip(boxes.long().tolist(), labels.tolist()):
            image[label, y1:y2, x1:x2] += 0.8
        gts.append(InstanceData(bboxes=boxes, labels=labels))
    return images, gts, [dict(img_shape=(size, size), pad_shape=(size, size)) for _ in counts]


def reassign_calls(head: nn.Module, stages: int, per_stage: int, steps: int = 12, size: int = 192,
                   batch: int = 8, seed: int = 0) -> Iterator[list[tuple]]:
    """The arguments of every ``paa_reassign`` call in ``per_stage`` batches at each of ``stages``.

    ``steps`` SGD steps lie between two stages. Yields one list, a call per image, for each batch.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = TinyPAA(head)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.9)
    calls: list[tuple] = []
    original = head.paa_reassign

    def listen(*args):
        calls.append(args)
        return original(*args)

    head.__dict__['paa_reassign'] = listen
    try:
        for stage in range(stages):
            for step in range(per_stage + steps * (stage + 1 < stages)):
                observed = step < per_stage
                counts = torch.randint(0, 25, (batch if observed else 2,), generator=generator)
                images, gts, metas = scenes(counts.tolist(), size, generator)
                calls.clear()
                with torch.set_grad_enabled(not observed):
                    losses = head.loss_by_feat(*net(images), gts, metas)
                if observed:
                    yield list(calls)
                    continue
                optimizer.zero_grad()
                sum(losses.values()).backward()
                nn.utils.clip_grad_norm_(net.parameters(), 10.)
                optimizer.step()
    finally:
        del head.__dict__['paa_reassign']
