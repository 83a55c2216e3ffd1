"""Batches that real data sets hold: without objects, crowds, one pixel, beyond the image, 500 objects, odd files."""
import copy

import hard_images
import pytest
import torch
from conftest import build, losses_of, total
from methods import METHODS
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from kd_det.plain import student_model

OFF = {  # what turns each kind of method off
    'faster_rcnn': dict(rpn_distill=dict(hard_weight=1, bbox=None, cls=None), hints=[dict(
        layer='neck', loss=dict(loss_weight=0))], rcnn_distill=dict(hard_weight=1, cls=dict(loss_weight=0), bbox=dict(
            loss_weight=0))),
    'solad': dict(lad=False, soft_label=dict(cls=None, bbox=dict(loss_weight=0), score_factor=None)),
    'soft label, retinanet': dict(terms=[dict(type='SoftLabel', cls=None, bbox=None, score_factor=None)]),
}


@pytest.fixture(scope='module')
def batches(tmp_path_factory):
    """Name -> batch, through MMDetection's own data set and pipeline."""
    root = hard_images.make(tmp_path_factory.mktemp('hard') / 'data')
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(hard_images.dataset_cfg(root))
    assert len(dataset) == len(hard_images.IMAGES)
    torch.manual_seed(0)
    return {name: hard_images.batch(dataset, files) for name, files in hard_images.BATCHES.items()}


def test_the_batches_are_what_they_are_called(batches):
    counts = {name: [len(sample.gt_instances) for sample in batch['data_samples']] for name, batch in batches.items()}
    assert counts == {'nothing': [0, 0], 'no objects, crowds, ignored': [0, 0, 0],
                      'one pixel, beyond the image': [3, 3], '500 objects beside none': [500, 0],
                      'grey, 16 bit, CMYK, transparent, turned': [1] * 6, 'mixed sizes': [2, 1, 2]}
    crowds = batches['no objects, crowds, ignored']['data_samples']
    assert [len(sample.ignored_instances) for sample in crowds] == [0, 1, 0]
    assert all(image.shape[0] == 3 for batch in batches.values() for image in batch['inputs'])
    assert len({tuple(image.shape) for image in batches['mixed sizes']['inputs']}) == 3


@pytest.mark.parametrize('method', METHODS)
def test_every_method_trains_on_every_batch(method, batches, teachers):
    model = build(METHODS[method](teachers), 1)
    for name, batch in batches.items():
        model.zero_grad()
        losses = losses_of(model, copy.deepcopy(batch))
        values = {key: float(torch.stack(v).sum() if isinstance(v, list) else v) for key, v in losses.items()}
        assert all(value == value and abs(value) < 1e6 for value in values.values()), (name, values)
        total(losses).backward()
        bad = [key for key, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
        assert not bad, (name, bad[:3])


@pytest.mark.parametrize('method', OFF)
def test_with_weights_0_gradients_are_the_plain_detectors(method, batches, teachers):
    cfg = METHODS[method](teachers)
    cfg.update(copy.deepcopy(OFF[method]))
    model, plain = build(copy.deepcopy(cfg), 1), build(student_model(cfg), 1)
    for name, batch in batches.items():
        for network in (model, plain):
            network.zero_grad()
            total(losses_of(network, copy.deepcopy(batch))).backward()
        expected = dict(plain.named_parameters())
        for key, parameter in model.named_parameters():
            if key in expected:
                ours, theirs = parameter.grad, expected[key].grad
                assert (ours is None) == (theirs is None) and (ours is None or torch.equal(ours, theirs)), (name, key)
