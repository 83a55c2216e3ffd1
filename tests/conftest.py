"""Fixtures: tiny detectors and batches, made here, so that tests need neither data nor network."""
import contextlib
import logging
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch

import kd_det  # noqa: F401

torch.set_num_threads(1)

CLASSES = ('disc', 'square')


def faster_rcnn_cfg(width: int = 8, channels: int = 16, num_classes: int = 2, depth: int = 18, **model) -> dict:
    """A Faster R-CNN that takes milliseconds a step; the plain student or teacher of the tests."""
    from mmengine.config import ConfigDict
    from mmengine.hub import get_config
    cfg = get_config('mmdet::_base_/models/faster-rcnn_r50_fpn.py').model
    widths = [width * 2**i for i in range(4)]
    if depth >= 50:
        widths = [4 * w for w in widths]
    cfg.backbone.update(depth=depth, base_channels=width, frozen_stages=-1, norm_eval=False, init_cfg=None)
    cfg.neck.update(in_channels=widths, out_channels=channels)
    cfg.rpn_head.update(in_channels=channels, feat_channels=channels)
    cfg.rpn_head.anchor_generator.scales = [4]
    cfg.roi_head.bbox_roi_extractor.out_channels = channels
    cfg.roi_head.bbox_head.update(in_channels=channels, fc_out_channels=32, num_classes=num_classes)
    cfg.train_cfg.rpn.sampler.num = 64
    cfg.train_cfg.rcnn.sampler.num = 32
    cfg.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
    cfg.test_cfg.rpn.update(nms_pre=100, max_per_img=50)
    cfg = ConfigDict(cfg.to_dict())
    cfg.merge_from_dict(model) if hasattr(cfg, 'merge_from_dict') else cfg.update(model)
    return cfg


@contextlib.contextmanager
def _quiet():
    """MMEngine logs every weight it initialises, which buries a failure's own output."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def build(cfg: dict, seed: int = 0):
    """Build a detector with its own seed, in train mode."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
    with _quiet():
        model.init_weights()
    return model.train()


def save_checkpoint(model, path, classes=CLASSES) -> str:
    """A checkpoint as MMEngine writes them."""
    from mmengine.runner import save_checkpoint as save
    save(dict(meta=dict(dataset_meta=dict(classes=classes)), state_dict=model.state_dict()), str(path))
    return str(path)


def make_batch(sizes=((96, 128), (96, 128)), objects=(3, 0), seed=0, teacher_scale=0, num_classes=2) -> dict:
    """Images with bright rectangles, as a data loader hands them to the detector's data_preprocessor."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    rng = np.random.default_rng(seed)
    inputs, samples = [], []
    for (height, width), count in zip(sizes, objects):
        image = rng.integers(0, 80, (3, height, width)).astype(np.uint8)
        boxes, labels = [], []
        for _ in range(count):
            w, h = rng.integers(16, 48, 2)
            x, y = rng.integers(0, width - w), rng.integers(0, height - h)
            label = int(rng.integers(num_classes))
            image[label, y:y + h, x:x + w] = 250
            boxes.append([x, y, x + w, y + h])
            labels.append(label)
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width),
                                             scale_factor=(1.0, 1.0), img_id=len(samples)))
        sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                                           labels=torch.tensor(labels, dtype=torch.long))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        if teacher_scale:
            sample.teacher_view = torch.from_numpy(image).repeat_interleave(teacher_scale, 1) \
                .repeat_interleave(teacher_scale, 2)
        inputs.append(torch.from_numpy(image))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def losses_of(model, batch, seed=0) -> dict:
    """The loss dict of one step from a fixed random state; per-level lists as they are."""
    torch.manual_seed(seed)
    data = model.data_preprocessor(batch, True)
    return model.loss(data['inputs'], data['data_samples'])


def total(losses: dict):
    """The sum that training minimises."""
    return sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if 'loss' in k)


@pytest.fixture(scope='session')
def teacher_checkpoint(tmp_path_factory):
    """(config, checkpoint) of a tiny teacher with other widths than the student."""
    cfg = faster_rcnn_cfg(width=16, channels=24)
    model = build(cfg, seed=7)
    return faster_rcnn_cfg(width=16, channels=24), save_checkpoint(model, tmp_path_factory.mktemp('t') / 'teacher.pth')
