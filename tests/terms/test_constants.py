"""What a hint on the neck takes where its config gives nothing: the published constants of each kind of student."""
import copy
from types import SimpleNamespace

import pytest
from any_detector import DETECTORS
from conftest import build, losses_of, make_batch, save_checkpoint
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from kd_det.errors import ConfigError
from kd_det.terms.constants import constants_for

FGD = ('temperature', 'alpha', 'beta', 'gamma', 'lam')
# head of the student: FGD's five numbers and levels, MGD's ratio, weight and levels, PKD's weight
PUBLISHED = {
    'RetinaHead': ((0.5, 1e-3, 5e-4, 5e-4, 5e-6), 5, (0.65, 2e-5), 5, 10),
    'GFLHead': ((0.5, 1e-3, 5e-4, 5e-4, 5e-6), 5, (0.65, 2e-5), 5, 10),
    'FCOSHead': ((0.8, 1.6e-3, 8e-4, 8e-4, 8e-6), 5, (0.65, 2e-5), 5, 10),
    'RepPointsHead': ((0.5, 1.6e-3, 8e-4, 8e-4, 8e-6), 5, (0.65, 2e-5), 5, 10),
    'StandardRoIHead': ((0.5, 5e-5, 2.5e-5, 5e-5, 5e-7), 4, (0.45, 5e-7), 4, 6),
    'CascadeRoIHead': ((0.5, 5e-5, 2.5e-5, 5e-5, 5e-7), 4, (0.45, 5e-7), 4, 6),
}


def student_with(head):
    """A detector of which only the class of its last head matters."""
    cls = MODELS.module_dict[head]
    return SimpleNamespace(**{'roi_head' if 'RoI' in head else 'bbox_head': cls.__new__(cls)})


def of(loss, head, layer='neck', **given):
    return constants_for('terms[0]', dict(type=loss, **given), layer, student_with(head))


@pytest.mark.parametrize('head', PUBLISHED)
def test_table_holds_the_published_numbers(head):
    numbers, fgd_levels, mgd, mgd_levels, pkd = PUBLISHED[head]
    found = of('FGDLoss', head)
    assert (found.loss, found.levels) == (dict(zip(FGD, numbers)), fgd_levels)
    found = of('MGDLoss', head)
    assert (found.loss, found.levels) == (dict(zip(('mask_ratio', 'loss_weight'), mgd)), mgd_levels)
    found = of('PKDLoss', head)
    assert (found.loss, found.levels) == (dict(loss_weight=pkd), 4)
    found = of('CWDLoss', head)
    assert (found.loss, found.levels) == (dict(temperature=1, standardise=False, loss_weight=10), None)


def test_rtmdet_has_a_cwd_of_its_own():
    for head in ('RTMDetHead', 'RTMDetSepBNHead'):
        found = of('CWDLoss', head)
        assert (found.loss, found.levels) == (dict(temperature=1, standardise=True, loss_weight=1), 3)


@pytest.mark.parametrize('head', ['ATSSHead', 'VFNetHead', 'TOODHead', 'PAAHead', 'YOLOXHead', 'CenterNetHead'])
def test_other_dense_students_borrow_and_the_plan_says_so(head):
    found = of('FGDLoss', head)  # VFNet's head is an FCOSHead too, and has no FCOS's constants
    assert found.loss == dict(zip(FGD, PUBLISHED['RetinaHead'][0]))
    assert found.of == f'RetinaNet and GFL (none are published for {head} alone)'


@pytest.mark.parametrize('head', ['DETRHead', 'SparseRoIHead'])
def test_a_student_without_constants_has_to_be_given_them(head):
    with pytest.raises(ConfigError, match=rf'terms\[0\]\.loss\.alpha: not given.*{head}; give alpha, gamma, lam'):
        of('FGDLoss', head, temperature=0.5, beta=1e-4)
    assert of('MGDLoss', head, mask_ratio=0.5, loss_weight=1e-6) is None
    assert of('HintLoss', head) is None


def test_constants_are_the_necks():
    assert of('FGDLoss', 'RetinaHead', 'backbone') is None
    assert constants_for('terms[0]', {}, 'neck', student_with('RetinaHead')) is None  # no type: HintLoss


def test_class_logits_have_constants_of_their_own():
    found = of('CWDLoss', 'GFLHead', 'bbox_head.gfl_cls')
    assert (found.loss, found.levels) == (dict(temperature=1, standardise=False, loss_weight=5), None)
    assert found.of == 'class logits of GFL'
    found = of('CWDLoss', 'RetinaHead', 'bbox_head.retina_cls')
    assert found.loss['loss_weight'] == 5
    assert found.of == 'class logits of GFL (none are published for RetinaHead alone)'
    assert of('CWDLoss', 'GFLHead', 'bbox_head.gfl_reg') is None
    assert of('PKDLoss', 'GFLHead', 'bbox_head.gfl_cls') is None


# -- in a detector
# ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def hint(tmp_path_factory):
    teachers = {}

    def of(kind, loss, whole=False, **term):
        if kind not in teachers:
            path = tmp_path_factory.mktemp('teacher') / f'{kind}.pth'
            cfg = DETECTORS[kind](16)
            teachers[kind] = dict(config=copy.deepcopy(cfg), checkpoint=save_checkpoint(build(cfg, 7), path))
        cfg = ConfigDict(DETECTORS[kind](8))
        cfg.update(student_type=cfg.type, type='Distiller', teacher=copy.deepcopy(teachers[kind]),
                   terms=[dict(dict(type='Hint', layer='neck', loss=loss), **term)])
        model = build(cfg, 1)
        return model if whole else model.terms[0]
    return of


@pytest.mark.parametrize('kind,head', [('retinanet', 'RetinaHead'), ('gfl', 'GFLHead'), ('fcos', 'FCOSHead'),
                                       ('faster_rcnn', 'StandardRoIHead'), ('mask_rcnn', 'StandardRoIHead'),
                                       ('cascade_rcnn', 'CascadeRoIHead')])
def test_they_reach_every_levels_loss(hint, kind, head):
    numbers, levels, *_ = PUBLISHED[head]
    term = hint(kind, dict(type='FGDLoss'))
    assert term.pairs == [(i, i) for i in range(levels)] and len(term._losses) == levels
    for loss in term._losses:
        assert tuple(getattr(loss, name) for name in FGD) == numbers
        assert loss.loss_weight == 1  # not in the table: the loss's own default


def test_what_is_given_wins_and_the_plan_prints_the_rest(hint):
    term = hint('faster_rcnn', dict(type='FGDLoss', alpha=0.25, lam=0), levels=[1, 4])
    assert (term.loss.alpha, term.loss.lam, term.loss.beta) == (0.25, 0, 2.5e-5)
    assert [i for i, _ in term.pairs] == [1, 4]
    assert term.describe()[1] == ('    not given, as published for Faster, Mask and Cascade R-CNN: temperature=0.5, '
                                  'beta=2.5e-05, gamma=5e-05')
    term = hint('faster_rcnn', dict(type='PKDLoss'))
    assert term.describe()[1] == '    not given, as published for Faster R-CNN: loss_weight=6.0, levels=[0, 1, 2, 3]'
    term = hint('faster_rcnn', dict(type='PKDLoss', loss_weight=2.0), levels=None)  # None asks for all of them
    assert len(term.pairs) == 5 and 'not given' not in '\n'.join(term.describe())


def test_other_losses_keep_all_levels(hint):
    term = hint('faster_rcnn', dict(type='HintLoss'))
    assert len(term.pairs) == 5 and 'not given' not in '\n'.join(term.describe())


@pytest.mark.parametrize('kind, layer', [('gfl', 'gfl_cls'), ('retinanet', 'retina_cls'), ('fcos', 'conv_cls'),
                                         ('atss', 'atss_cls')])
def test_cwd_on_class_logits_is_what_the_config_says(hint, kind, layer):
    """Not the neck: MMRazor's config of that name inherits the neck's and silently distils there."""
    model = hint(kind, dict(type='CWDLoss'), True, layer=f'bbox_head.{layer}', adapter=None)
    lines = [line for line in model.plan() if 'hint' in line or 'as published' in line]
    assert lines[0].startswith(f'hint bbox_head.{layer} <- teacher bbox_head.{layer}, CWDLoss')
    assert lines[1].startswith('    not given, as published for class logits of GFL')
    assert lines[1].endswith(': temperature=1.0, standardise=False, loss_weight=5.0')
    assert len(lines) == 2 and model.terms[0].pairs == [(i, i) for i in range(5)]
    assert model.terms[0].compares_classes
    logits = {}
    for name, network in (('student', model), ('teacher', model.teacher.model)):
        network.bbox_head.register_forward_hook(lambda module, args, out, name=name: logits.update({name: out[0]}))
    losses = losses_of(model, make_batch(sizes=((64, 96),) * 2))
    expected = 0.0
    for ours, theirs in zip(logits['student'], logits['teacher']):  # (2, A classes, h, w) each
        for image in range(2):
            for one, other in zip(ours[image].detach().double(), theirs[image].double()):
                p, q = one.flatten().softmax(0), other.flatten().softmax(0)
                expected += 5 * float((q * (q / p).log()).sum()) / (2 * len(ours[image]))
    assert float(losses[f'loss_hint_bbox_head_{layer}'].detach()) == pytest.approx(expected, rel=1e-3)


def test_class_logits_through_an_adapter_are_no_classes(hint):
    assert not hint('gfl', dict(type='CWDLoss'), layer='bbox_head.gfl_cls').compares_classes
    assert not hint('gfl', dict(type='CWDLoss')).compares_classes
