"""Teacher annealing: pure distillation at the beginning, the ground truth alone at the end, both weights in between."""
import pytest
import torch
from conftest import CLASSES, build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub

from kd_det.errors import ConfigError


@pytest.fixture
def clock():
    hub = MessageHub.get_current_instance()

    def at(iteration):
        hub.update_info('iter', iteration)
        hub.update_info('max_iters', 40)
    yield at
    at(0)


def number(value):
    return float((sum(value) if isinstance(value, list) else value).detach())


def test_chen_terms_follow_training(teacher_checkpoint, clock):
    def model(hard_weight):
        cfg = ConfigDict(faster_rcnn_cfg())
        cfg.update(type='FasterRCNNDistiller', student_type='FasterRCNN',
                   teacher=dict(config=teacher_checkpoint[0], checkpoint=teacher_checkpoint[1]),
                   rpn_distill=dict(hard_weight=hard_weight, bbox=None),
                   rcnn_distill=dict(hard_weight=hard_weight, bbox=None))
        return build(cfg, 1)
    annealed, plain = model('anneal'), losses_of(build(faster_rcnn_cfg(), 1), make_batch())
    for iteration, fixed in ((0, 0.0), (10, 0.25), (30, 0.75)):
        clock(iteration)
        found, expected = losses_of(annealed, make_batch()), losses_of(model(fixed), make_batch())
        for name in ('loss_cls', 'loss_rpn_cls', 'loss_cls_distill', 'loss_rpn_cls_distill'):
            assert number(found[name]) == pytest.approx(number(expected[name])), name
    clock(40)
    found = losses_of(annealed, make_batch())
    for name, value in plain.items():
        assert number(found[name]) == number(value), name
    assert number(found['loss_cls_distill']) == number(found['loss_rpn_cls_distill']) == 0


def test_soft_labels_follow_training(tmp_path, clock):
    teacher = dense_cfg('retinanet', width=16)
    teacher.type = 'RetinaNet'
    path = save_checkpoint(build(teacher.copy(), 7), tmp_path / 't.pth', CLASSES)
    student = dense_cfg('retinanet', width=8)
    student.type = 'RetinaNet'

    def model(**options):
        cfg = ConfigDict(student.copy())
        cfg.update(type='Distiller', student_type='RetinaNet', teacher=dict(config=teacher, checkpoint=path),
                   terms=[dict(type='SoftLabel', **options)])
        return build(cfg, 1)
    always, plain = losses_of(model(), make_batch()), losses_of(build(student.copy(), 1), make_batch())
    annealed = model(anneal=True)
    for iteration in (0, 10, 40):
        clock(iteration)
        part = iteration / 40
        found = losses_of(annealed, make_batch())
        for name, value in always.items():
            weight = part if name in plain else 1 - part
            assert number(found[name]) == pytest.approx(weight * number(value)), name


def test_annealing_without_ground_truth_is_refused(tmp_path):
    cfg = dense_cfg('retinanet', width=8)
    cfg.type = 'RetinaNet'
    path = save_checkpoint(build(cfg.copy(), 7), tmp_path / 't.pth')
    alone = ConfigDict(cfg.copy())
    alone.update(type='Distiller', student_type='RetinaNet', teacher=dict(config=cfg, checkpoint=path),
                 ground_truth=False, terms=[dict(type='SoftLabel', anneal=True)])
    with pytest.raises(ConfigError, match='ground_truth=True'), torch.random.fork_rng():
        build(alone)
