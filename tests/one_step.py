"""A shipped config at a reduced size: its own data pipeline on a few small images, one training step, one prediction.

Nothing is downloaded or read from ``data/``: images and annotations are made here, for whatever classes the config has,
and teachers, peers and backbones keep random weights.
"""
import copy
import json
import math
from contextlib import contextmanager
from unittest import mock

import cv2
import numpy as np
import torch
from conftest import total
from mmdet.models.dense_heads import YOLOXHead
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from kd_det.plain import deployed_config

SIDE = 160  # pixels of the longer side that pipelines are brought down to
STRIDE = 32
SIZES = ('scale', 'scales', 'img_scale', 'size', 'crop_size', 'border')
ITERATION = 1  # what heads that look at the progress of training are told


def make_data(folder, classes):
    """COCO files of four images, 160x120 pixels, with polygons too, in which every class may appear."""
    rng = np.random.default_rng(0)
    images, notes = [], []
    for i in range(4):
        picture = rng.integers(0, 90, (120, 160, 3), dtype=np.uint8)
        for k in range(3):
            w, h = (int(v) for v in rng.integers(24, 70, 2))
            x, y = int(rng.integers(0, 160 - w)), int(rng.integers(0, 120 - h))
            picture[y:y + h, x:x + w] = rng.integers(120, 255, 3)
            notes.append(dict(id=len(notes) + 1, image_id=i, category_id=(3 * i + k) % len(classes), bbox=[x, y, w, h],
                              area=w * h, iscrowd=0, segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
        cv2.imwrite(str(folder / f'{i}.png'), picture)
        images.append(dict(id=i, file_name=f'{i}.png', width=160, height=120))
    path = folder / 'annotations.json'
    path.write_text(json.dumps(dict(images=images, annotations=notes, categories=[
        dict(id=k, name=name) for k, name in enumerate(classes)])))
    return str(path)


def data_sets(cfg):
    """The innermost data sets of a train data set, which may wrap others."""
    if 'datasets' in cfg:
        return [inner for one in cfg['datasets'] for inner in data_sets(one)]
    return data_sets(cfg['dataset']) if 'dataset' in cfg else [cfg]


def classes_of(cfg):
    own = (cfg.get('metainfo') or {}).get('classes') or DATASETS.get(cfg['type']).METAINFO['classes']
    return (own,) if isinstance(own, str) else tuple(own)


def largest_side(node):
    """The largest number that a pipeline names as a size."""
    if isinstance(node, dict):
        return max([0, *(largest_side(v) for k, v in node.items()),
                    *(_largest(v) for k, v in node.items() if k in SIZES and k != 'border')])
    return max([0, *(largest_side(v) for v in node)]) if isinstance(node, (list, tuple)) else 0


def _largest(value):
    if isinstance(value, (list, tuple)):
        return max([0, *(_largest(v) for v in value)])
    return abs(value) if isinstance(value, int) and not isinstance(value, bool) else 0


def scaled(node, factor):
    """Every size in a pipeline times ``factor``."""
    if isinstance(node, dict):
        return ConfigDict({k: _numbers(v, factor) if k in SIZES else scaled(v, factor) for k, v in node.items()})
    return type(node)(scaled(v, factor) for v in node) if isinstance(node, (list, tuple)) else node


def _numbers(value, factor):
    if isinstance(value, (list, tuple)):
        return type(value)(_numbers(v, factor) for v in value)
    if not isinstance(value, int) or isinstance(value, bool) or factor == 1:
        return value
    # multiples of the largest stride: batches of mosaics are not padded further
    whole = value if value > 0 else -2 * value  # a border is half of what it takes off
    small = max(STRIDE, round(whole * factor / STRIDE) * STRIDE)
    return small if value > 0 else -(small // 2)


def reduced(cfg: Config, folder) -> Config:
    """The config on generated data, everything in its pipelines small, two images a batch in training and in testing.
    """
    cfg = copy.deepcopy(cfg)
    classes = classes_of(data_sets(cfg.train_dataloader.dataset)[0])
    path = make_data(folder, classes)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        factor = min(1.0, SIDE / max(largest_side(loader.dataset), 1))
        loader.dataset = _few_cached(scaled(loader.dataset, factor))
        for one in data_sets(loader.dataset):
            one.update(type='CocoDataset', data_root='', ann_file=path, data_prefix=dict(img=str(folder)),
                       metainfo=dict(classes=classes))
            one.pop('sub_data_root', None)
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.pop('prefetch_factor', None)
        if 'batch_size' in loader.get('sampler', {}):  # fixed shares of several data sets in a batch
            loader.sampler.update(batch_size=2, source_ratio=[1] * len(loader.sampler.source_ratio))
    # networks that have learned nothing give every class of every proposal
    if 'rpn' in (cfg.model.get('test_cfg') or {}):
        cfg.model.test_cfg.rpn.max_per_img = 20
    return cfg


def _few_cached(node):
    """Mosaics of a few images keep no more of them than there are."""
    if isinstance(node, dict):
        return ConfigDict({k: min(v, 8) if k == 'max_cached_images' else _few_cached(v) for k, v in node.items()})
    return type(node)(_few_cached(v) for v in node) if isinstance(node, (list, tuple)) else node


@contextmanager
def random_teachers(model):
    """In the block, a teacher's checkpoint is what the teacher is born with; it is loaded, checked and folded as ever.
    """
    networks = {}
    for name, source in getattr(model, 'sources', {}).items():
        if getattr(source, 'checkpoint', None) and hasattr(source, 'model') and hasattr(source, 'folded'):
            source.checkpoint = f'{name}.pth'
            networks[source.checkpoint] = source.model.state_dict()
    with mock.patch('kd_det.sources.frozen.read_state_dict', lambda path: (networks[path], {})):
        yield


def step_and_predict(cfg: Config, folder) -> dict[str, float]:
    """One step and one prediction of a config at a reduced size; returns the losses.

    Raises:
        AssertionError: a loss that is not finite, a term without a loss, a student without a gradient, a checkpoint
            that is not the plain student's.
    """
    cfg = reduced(cfg, folder)
    hub = MessageHub.get_current_instance()
    for name, value in dict(epoch=0, iter=ITERATION, max_epochs=12, max_iters=1000).items():
        hub.update_info(name, value)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(copy.deepcopy(cfg.model)).train()
        for part in ('rpn_head', 'bbox_head'):  # biases and scales as in training; backbones would be downloaded
            if hasattr(model, part):
                getattr(model, part).init_weights()
        # what was never trained has seen no batch; prediction uses this one's statistics
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
        batch, images = (next(iter(Runner.build_dataloader(copy.deepcopy(cfg[key]), seed=0)))
                         for key in ('train_dataloader', 'test_dataloader'))
        if getattr(model, 'unlabelled', None) is not None:
            model.unlabelled.take(copy.deepcopy(batch))
        with random_teachers(model):
            losses = _step(model, batch)
        with torch.no_grad():
            found = model.eval().test_step(images)
        plain = deployed_config(cfg).model
        with torch.device('meta'):
            names = _meta_keys(plain)
    assert len(found) == 2 and all(bool(one.pred_instances.scores.isfinite().all()) for one in found)
    # YOLOX's sides are exponentials, here of what a network says that has learned nothing
    assert isinstance(getattr(model, 'bbox_head', None), YOLOXHead) or all(
        bool(one.pred_instances.bboxes.isfinite().all()) for one in found)
    if names is not None:
        assert set(model.state_dict()) == names
    return losses


def _step(model, batch):
    data = model.data_preprocessor(batch, True)
    assert max(data['inputs'].shape[-2:]) <= 2 * SIDE
    losses = model(**data, mode='loss')
    values = {name: float(sum(value) if isinstance(value, list) else value) for name, value in losses.items()}
    assert all(math.isfinite(value) for value in values.values()), values
    missing = [name for name in getattr(model, 'distill_terms', []) if name not in values]
    assert not missing, missing
    whole = total(losses)
    whole.backward()
    trained = [p for n, p in model.named_parameters() if p.requires_grad and n.startswith('backbone.')]
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in trained)
    torch.optim.SGD([p for p in model.parameters() if p.grad is not None], lr=1e-6).step()
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    model.zero_grad(set_to_none=True)
    return values


def _meta_keys(model):
    """Names of the plain student's weights, built without memory; None where a layer needs some."""
    try:
        return set(MODELS.build(copy.deepcopy(model)).state_dict())
    except (RuntimeError, NotImplementedError):
        return None

