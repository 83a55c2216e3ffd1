"""Fixtures: tiny detectors and batches, made here, so that tests need neither data nor network."""
import contextlib
import copy
import functools
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch

import kd_det  # noqa: F401  (prepares the stack before anything of MMEngine is imported)

# isort: split
import mmengine.config.config

torch.set_num_threads(1)


def _unformatted(text: str, **_) -> tuple[str, bool]:
    """In the place of YAPF, which lays the text of a config out seven times a run, two thirds of a small run's time."""
    compile(text, 'a dumped config', 'exec')
    return text, True


if hasattr(mmengine.config.config, 'FormatCode'):
    mmengine.config.config.FormatCode = _unformatted


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run the tests marked slow too')


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes more than some ten seconds; run with --slow')


def pytest_collection_modifyitems(config, items):
    if not config.getoption('--slow'):
        for item in items:
            if 'slow' in item.keywords:
                item.add_marker(pytest.mark.skip(reason='slow: run with --slow'))


CLASSES = ('disc', 'square')


@functools.cache
def _mmdet_model(path: str) -> dict:
    from mmengine.config import Config

    from kd_det.shipped import config_file
    return Config.fromfile(config_file(f'mmdet::{path}')).model.to_dict()


def mmdet_model(path: str):
    """The model of one of MMDetection's configs, as a ConfigDict of one's own; each file is read once."""
    from mmengine.config import ConfigDict
    return ConfigDict(copy.deepcopy(_mmdet_model(path)))


def faster_rcnn_cfg(width: int = 8, channels: int = 16, num_classes: int = 2, depth: int = 18, **model) -> dict:
    """A Faster R-CNN that takes milliseconds a step; the plain student or teacher of the tests."""
    from mmengine.config import ConfigDict
    cfg = mmdet_model('_base_/models/faster-rcnn_r50_fpn.py')
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


@pytest.fixture(scope='session')
def teachers(tmp_path_factory):
    """Teachers of every kind, for :data:`methods.METHODS`."""
    from methods import Teachers
    return Teachers(tmp_path_factory.mktemp('teachers'))


@pytest.fixture(scope='session')
def tiny_coco(tmp_path_factory):
    """A COCO-format data set of 8 training and 4 validation images of 128x96 pixels; one image has no objects."""
    import json

    import cv2
    root = tmp_path_factory.mktemp('tiny')
    (root / 'images').mkdir()
    (root / 'annotations').mkdir()
    for split, count, seed in (('train', 8, 0), ('val', 4, 1)):
        images, notes = [], []
        for i in range(count):
            batch = make_batch(sizes=((96, 128),), objects=(0 if i == 1 else 3,), seed=100 * seed + i)
            name = f'{split}_{i}.png'
            cv2.imwrite(str(root / 'images' / name), batch['inputs'][0].permute(1, 2, 0).numpy())
            images.append(dict(id=i, file_name=name, width=128, height=96))
            instances = batch['data_samples'][0].gt_instances
            for (x1, y1, x2, y2), label in zip(instances.bboxes.tolist(), instances.labels.tolist()):
                notes.append(dict(id=len(notes) + 1, image_id=i, category_id=label + 1, iscrowd=0,
                                  bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1)))
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(dict(
            images=images, annotations=notes, categories=[dict(id=k + 1, name=n) for k, n in enumerate(CLASSES)])))
    return root


RUN_CONFIG = """
custom_imports = dict(imports=['kd_det'])
default_scope = 'mmdet'
data_root = {root!r}
metainfo = dict(classes=('disc', 'square'))
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
                  dict(type='Resize', scale=(128, 96), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
                  dict(type='PackDetInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 96), keep_ratio=True),
                 dict(type='LoadAnnotations', with_bbox=True),
                 dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='annotations/train.json',
                 data_prefix=dict(img='images/'), filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='annotations/val.json',
                 data_prefix=dict(img='images/'), test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox')
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1),
                     checkpoint=dict(type='CheckpointHook', interval=1, save_best='coco/bbox_mAP', rule='greater'))
randomness = dict(seed=0)
log_level = 'WARNING'
model = {model!r}
"""


@pytest.fixture
def run_config(tiny_coco, tmp_path):
    """Write a complete training config for a detector; returns its path."""
    def write(model: dict, name: str = 'config.py', extra: str = '') -> str:
        model = model.to_dict() if hasattr(model, 'to_dict') else model
        path = tmp_path / name
        path.write_text(RUN_CONFIG.format(root=f'{tiny_coco}/', model=model) + extra)
        return str(path)
    return write


def run_tool(tool: str, *arguments: str) -> None:
    """Run the command that ``tools/<tool>.py`` is a door to, in this process; its errors pass through."""
    import importlib

    from kd_det.cli.command import call
    try:
        call(importlib.import_module(f'kd_det.cli.{tool.rpartition("/")[2]}'), list(arguments), prog=tool)
    finally:
        from mmengine.logging import MMLogger
        MMLogger._instance_dict.clear()


TOOLS = Path(__file__).parents[1] / 'tools'


def script_call(name: str, arguments: tuple, path: str) -> dict:
    """What starts a script with ranks of their own, on a free port."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    return dict(args=['bash', str(TOOLS / name), *arguments],
                env={**os.environ, 'PYTHON': sys.executable, 'PORT': str(port), 'OMP_NUM_THREADS': '1',
                     'PYTHONPATH': path})


def run_script(name: str, *arguments: str, path: str = '', succeeds: bool = True) -> str:
    """Run a shell script of ``tools/`` that starts processes; returns what they said."""
    done = subprocess.run(**script_call(name, arguments, path), capture_output=True, text=True, timeout=600,
                          check=False)
    assert (done.returncode == 0) == succeeds, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


@pytest.fixture
def late_epoch():
    """TOOD asks the runner's message hub for the epoch; 100 is beyond its static ones."""
    from mmengine.logging import MessageHub
    hub = MessageHub.get_current_instance()
    before = hub.get_info('epoch')
    hub.update_info('epoch', 100)
    yield hub
    hub.update_info('epoch', before if before is not None else 0)


@pytest.fixture(scope='module')
def made_once(tmp_path_factory):
    """``made_once(name, make)`` -> (config, checkpoint) of a detector of random weights; ``make(16)`` gives its config.
    """
    made = {}

    def of(name, make):
        if name not in made:
            cfg = make(16)
            made[name] = cfg, save_checkpoint(build(copy.deepcopy(cfg), 7),
                                              tmp_path_factory.mktemp('t') / f'{name}.pth')
        return made[name]
    return of
