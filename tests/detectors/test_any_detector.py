"""The general distiller takes any MMDetection detector as it is: its class, losses, predictions and checkpoint stay."""
import copy

import pytest
import torch
from any_detector import DETECTORS, batch_of
from conftest import build, losses_of, save_checkpoint, total
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from kd_det.plain import student_model

TRANSFORMERS = ('detr', 'deformable_detr', 'dino')
LAYERS = {name: ['backbone', 'neck', *(['encoder.layers.0'] if name in TRANSFORMERS else [])] for name in DETECTORS}


@pytest.fixture(scope='module')
def teacher(made_once):
    """(config, checkpoint) of a wider detector of each kind."""
    return lambda name: made_once(name, DETECTORS[name])


def distilled(name, taught, terms, width=8):
    cfg = DETECTORS[name](width)
    cfg.update(student_type=cfg.type, type='Distiller', terms=terms,
               teacher=dict(config=copy.deepcopy(taught[0]), checkpoint=taught[1]))
    return ConfigDict(cfg)


def hints(name, **loss):
    return [dict(type='Hint', layer=layer, loss=dict(type='HintLoss', **loss)) for layer in LAYERS[name]]


def flat(losses):
    return {key: torch.stack([torch.as_tensor(v) for v in value]) if isinstance(value, list) else value
            for key, value in losses.items()}


@pytest.mark.parametrize('name', DETECTORS)
def test_one_step_trains_student_and_adapters_and_predictions_are_the_students(name, teacher, tmp_path):
    cfg = distilled(name, teacher(name), hints(name))
    model = build(copy.deepcopy(cfg), 1)
    assert isinstance(model, MODELS.get(cfg.student_type)) and type(model).student_class is MODELS.get(cfg.student_type)
    losses = losses_of(model, batch_of(name=name))
    for layer in LAYERS[name]:
        assert float(losses['loss_hint_' + layer.replace('.', '_')]) > 0
    total(losses).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.terms.parameters() if p.dim() > 1)
    assert float(sum(p.grad.abs().sum() for p in model.backbone.parameters() if p.grad is not None)) > 0
    # the checkpoint is the plain detector's, key for key, and predicts alike
    plain = build(student_model(cfg), 2)
    plain.load_state_dict(torch.load(save_checkpoint(model, tmp_path / 'c.pth'), weights_only=False)['state_dict'],
                          strict=True)
    results = []
    for network in (model, plain):
        network.eval()
        with torch.no_grad():
            data = network.data_preprocessor(batch_of(), False)
            results.append(network(**data, mode='predict')[0].pred_instances)
    assert torch.equal(results[0].scores, results[1].scores) and torch.equal(results[0].bboxes, results[1].bboxes)


@pytest.mark.parametrize('name', DETECTORS)
def test_weights_zero_are_the_plain_detector_bit_for_bit(name, teacher):
    cfg = distilled(name, teacher(name), hints(name, loss_weight=0))
    model, plain = build(copy.deepcopy(cfg), 1), build(student_model(cfg), 1)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())
    for seed in range(2):
        found, expected = (flat(losses_of(network, batch_of(seed, name), seed)) for network in (model, plain))
        assert found.keys() == expected.keys()
        for key in expected:
            assert torch.equal(found[key], expected[key]), key
        for network in (model, plain):
            network.zero_grad()
            total(losses_of(network, batch_of(seed, name), seed)).backward()
            torch.optim.SGD(network.parameters(), lr=0.001).step()
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('student, taught, pairs', [
    ('faster_rcnn', 'retinanet', [(1, 0), (2, 1), (3, 2), (4, 3)]),  # P3 .. P6 meet; P2 and P7 have no partner
    ('retinanet', 'faster_rcnn', [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ('fcos', 'cascade_rcnn', [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ('cascade_rcnn', 'rtmdet', [(1, 0), (2, 1), (3, 2)]),
    ('rtmdet', 'detr', [(2, 0)]),
    ('dino', 'gfl', [(0, 0), (1, 1), (2, 2), (3, 3)]),
])
def test_teachers_of_the_other_kind_meet_at_equal_strides(student, taught, pairs, teacher):
    """Levels are paired by stride, also where both pyramids have five (B22)."""
    model = build(distilled(student, teacher(taught), [dict(type='Hint', layer='neck')]), 1)
    assert model.terms[0].pairs == pairs
    assert float(losses_of(model, batch_of())['loss_hint_neck']) > 0
