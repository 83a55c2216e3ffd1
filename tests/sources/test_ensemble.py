"""Several teachers in one step: limit cases against one teacher, weights, classes that a teacher does not know."""
import copy

import pytest
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict

from kd_det.errors import ConfigError

CHEN = [dict(type='RPNDistillation'), dict(type='RCNNDistillation')]
HINTS = [dict(type='Hint', layer='neck')]


def distiller(student, sources, terms, source=None):
    cfg = ConfigDict(copy.deepcopy(student))
    own = cfg.type if cfg.type != 'Distiller' else 'PAA'
    terms = [dict(term, **({} if source is None else dict(source=source))) for term in copy.deepcopy(terms)]
    cfg.update(student_type=own, type='Distiller', sources=copy.deepcopy(sources), terms=terms)
    return build(cfg, 1)


def of(teacher):
    return dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1])


@pytest.fixture(scope='module')
def retina(tmp_path_factory):
    cfg = dense_cfg('retinanet', width=16)
    cfg.type = 'RetinaNet'
    path = save_checkpoint(build(copy.deepcopy(cfg), 7), tmp_path_factory.mktemp('r') / 'teacher.pth')
    student = dense_cfg('retinanet', width=8)
    student.type = 'RetinaNet'
    return student, (cfg, path)


def as_numbers(losses):
    return {k: float((sum(v) if isinstance(v, list) else v).detach()) for k, v in losses.items()}


@pytest.mark.parametrize('kind', ['two_stage', 'dense'])
def test_one_in_sources_is_bit_equal_and_two_equal_ones_are_equal(kind, teacher_checkpoint, retina):
    student, teacher, terms = (faster_rcnn_cfg(), teacher_checkpoint, CHEN) if kind == 'two_stage' else \
        (*retina, [dict(type='SoftLabel'), dict(type='BCKD')])
    one = losses_of(distiller(student, dict(teacher=of(teacher)), terms), make_batch())
    named = losses_of(distiller(student, dict(a=of(teacher)), terms, 'a'), make_batch())
    alone = losses_of(distiller(student, dict(a=of(teacher), b=of(teacher), e=dict(
        type='Ensemble', members=dict(a={}, b=dict(weight=0)))), terms, 'e'), make_batch())
    two = losses_of(distiller(student, dict(a=of(teacher), b=of(teacher)), terms, ['a', 'b']), make_batch())
    assert as_numbers(one) == as_numbers(named) == as_numbers(alone)
    assert as_numbers(one) == pytest.approx(as_numbers(two), rel=1e-4, abs=1e-6)


def test_a_teacher_of_weight_0_is_never_run_nor_read(teacher_checkpoint):
    other = dict(of(teacher_checkpoint), checkpoint='/nowhere.pth')
    model = distiller(faster_rcnn_cfg(), dict(a=of(teacher_checkpoint), b=other, e=dict(
        type='Ensemble', members=dict(a={}, b=dict(weight=0)), confidence=0.1)), CHEN, 'e')
    model.sources['b'].model.backbone.forward = None
    losses_of(model, make_batch())
    assert not model.sources['b'].loaded


def test_hints_of_two_teachers_are_their_channels_side_by_side(teacher_checkpoint):
    model = distiller(faster_rcnn_cfg(), dict(a=of(teacher_checkpoint), b=of(teacher_checkpoint)), HINTS, ['a', 'b'])
    assert model.terms[0].teacher_shapes[0][1] == 48
    losses = losses_of(model, make_batch())
    total(losses).backward()
    assert float(losses['loss_hint_neck']) > 0


def test_a_class_that_no_teacher_knows_has_no_gradient(tmp_path):
    teacher = faster_rcnn_cfg(num_classes=1)
    path = save_checkpoint(build(copy.deepcopy(teacher), 3), tmp_path / 't.pth', classes=('square',))
    sources = dict(a=of((teacher, path)), e=dict(type='Ensemble', members=dict(a=dict(classes=[1]))))
    terms = [dict(type='RCNNDistillation', hard_weight=0.0)]  # class scores learn from the teacher alone
    model = distiller(faster_rcnn_cfg(), sources, terms, 'e')
    losses = losses_of(model, make_batch(objects=(3, 3)))
    losses['loss_cls_distill'].backward()
    gradient = model.roi_head.bbox_head.fc_cls.weight.grad  # (classes + 1, features)
    assert not gradient[0].any() and gradient[1].any() and gradient[2].any()
    with pytest.raises(ConfigError, match='taught as background'):
        distiller(faster_rcnn_cfg(), sources, CHEN, 'e')


@pytest.mark.parametrize('members', [dict(a=dict(weight=[0.0, 1.0])),
                                     dict(a=dict(weight=[0.0, 1.0]), b=dict(weight=[0.0, 2.0]))])
def test_a_class_of_weight_0_everywhere_has_no_gradient(members, teacher_checkpoint):
    """Also where a single teacher is left, whose own answer would speak about all classes."""
    sources = dict(a=of(teacher_checkpoint), b=of(teacher_checkpoint), e=dict(type='Ensemble', members=members))
    model = distiller(faster_rcnn_cfg(), sources, [dict(type='RCNNDistillation', hard_weight=0.0)], 'e')
    losses_of(model, make_batch(objects=(3, 3)))['loss_cls_distill'].backward()
    gradient = model.roi_head.bbox_head.fc_cls.weight.grad  # (classes + 1, features)
    assert not gradient[0].any() and gradient[1].any() and gradient[2].any()


def test_dense_teacher_of_one_class(retina, tmp_path):
    student, _ = retina
    teacher = dense_cfg('retinanet', width=8)
    teacher.update(type='RetinaNet')
    teacher.bbox_head.num_classes = 1
    path = save_checkpoint(build(copy.deepcopy(teacher), 3), tmp_path / 't.pth', classes=('square',))
    sources = dict(a=of((teacher, path)), e=dict(type='Ensemble', members=dict(a=dict(classes=[1]))))
    model = distiller(student, sources, [dict(type='SoftLabel')], 'e')
    losses = losses_of(model, make_batch(objects=(3, 3)))
    losses['loss_cls_distill'].backward()
    gradient = model.bbox_head.retina_cls.bias.grad.view(-1, 2)  # (anchors, classes)
    assert not gradient[:, 0].any() and gradient[:, 1].any()


@pytest.mark.parametrize('members, what', [
    (['nobody'], 'no frozen teacher'), (dict(a=dict(weight=-1)), 'at least 0'),
    (dict(a=dict(weight=0)), 'every weight'), (dict(a=dict(weight=[1., 1., 1.])), '3 weights'),
    (dict(a=dict(classes=[5])), '2 classes'), (dict(a=dict(wieght=1)), 'unknown keys')])
def test_bad_members_are_refused_by_name(members, what, teacher_checkpoint):
    with pytest.raises(ConfigError, match=what):
        distiller(faster_rcnn_cfg(), dict(a=of(teacher_checkpoint), e=dict(type='Ensemble', members=members)), CHEN,
                  'e')
