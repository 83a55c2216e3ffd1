"""The general distiller: sources by name, terms by name, schedules, copies."""
import copy
import math
import pickle

import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub

from kd_det.errors import ConfigError
from kd_det.terms.schedule import Schedule

HINT = dict(type='Hint', layer='neck')


@pytest.fixture
def clock():
    """Sets the epoch and iteration of a run of 10 epochs with 4 iterations each."""
    hub = MessageHub.get_current_instance()

    def at(epoch, iteration=None):
        for name, value in (('epoch', epoch), ('iter', 4 * epoch if iteration is None else iteration),
                            ('max_epochs', 10), ('max_iters', 40)):
            hub.update_info(name, value)
    yield at
    at(0)


def cfg_with(teacher, **options):
    cfg = ConfigDict(faster_rcnn_cfg())
    cfg.update(student_type='FasterRCNN', type='Distiller', **copy.deepcopy(options))
    if 'sources' not in options:
        cfg.teacher = dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1])
    return cfg


def of(teacher, **options):
    return dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1], **options)


# -- schedules
# -------------------------------------------------------------------------------------------------------------
def test_factors_by_hand(clock):
    at = dict(start_epoch=2, stop_epoch=8)
    for epoch, expected in ((0, 0.0), (1, 0.0), (2, 1.0), (7, 1.0), (8, 0.0), (9, 0.0)):
        clock(epoch)
        assert Schedule(**at).factor() == expected
    clock(5)  # half way between epochs 2 and 8
    assert Schedule(**at, decay='cosine').factor() == pytest.approx(0.5)
    assert Schedule(**at, decay='cosine', floor=0.01).factor() == pytest.approx(0.505)
    clock(2, 9)  # the first of 24 iterations is over
    assert Schedule(**at, decay='cosine').factor() == pytest.approx((1 + math.cos(math.pi / 24)) / 2)
    clock(9, 39)
    assert Schedule(decay='cosine').factor() == pytest.approx((1 + math.cos(math.pi * 39 / 40)) / 2)


def steps(model, clock, epochs, seeds=(0, 1)):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for epoch in epochs:
        clock(epoch)
        for seed in seeds:
            losses = losses_of(model, make_batch(seed=seed), seed=10 * epoch + seed)
            optimizer.zero_grad()
            total(losses).backward()
            optimizer.step()
    return losses


@pytest.mark.parametrize('terms', [
    [dict(HINT, stop_epoch=1)],
    [dict(type='RPNDistillation', stop_epoch=1), dict(type='RCNNDistillation', stop_epoch=1, reg_weight=2.0)]])
def test_from_stop_epoch_on_a_run_is_plain_bit_for_bit(teacher_checkpoint, clock, terms):
    model, plain = build(cfg_with(teacher_checkpoint, terms=terms), 1), build(faster_rcnn_cfg(), 1)
    assert set(model.distill_terms) <= set(steps(model, clock, [0]))
    plain.load_state_dict(model.state_dict())
    found, expected = steps(model, clock, [1, 2]), steps(plain, clock, [1, 2])
    assert found.keys() == expected.keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_stopped_teacher_does_not_run(teacher_checkpoint, clock, monkeypatch):
    model = build(cfg_with(teacher_checkpoint, terms=[dict(HINT, stop_epoch=1)]), 1)
    monkeypatch.setattr(model.teacher.model.backbone, 'forward', None)
    clock(1)
    losses_of(model, make_batch())


def test_decay_scales_the_soft_terms_and_gives_the_hard_ones_back(teacher_checkpoint, clock):
    """At factor f: f (1 - mu) of the soft loss, 1 - f (1 - mu) of the hard one."""
    cfg = dict(type='RCNNDistillation', hard_weight=0.3, bbox=None)
    found = {}
    for epoch, decay in ((0, None), (5, 'cosine')):
        clock(epoch)
        found[decay] = losses_of(build(cfg_with(teacher_checkpoint, terms=[dict(cfg, decay=decay)]), 1), make_batch())
    plain = losses_of(build(faster_rcnn_cfg(), 1), make_batch())
    assert float(found['cosine']['loss_cls_distill']) == pytest.approx(0.5 * float(found[None]['loss_cls_distill']))
    assert float(found[None]['loss_cls']) == pytest.approx(0.3 * float(plain['loss_cls']))
    assert float(found['cosine']['loss_cls']) == pytest.approx(0.65 * float(plain['loss_cls']))


@pytest.mark.parametrize('options, words', [
    (dict(start_epoch=3, stop_epoch=3), r'terms\[0\]\.stop_epoch: found 3, start_epoch is 3'),
    (dict(start_epoch=-1), r'terms\[0\]\.start_epoch: found -1'),
    (dict(stop_epoch=2.5), r'terms\[0\]\.stop_epoch: found 2\.5'),
    (dict(decay='linear'), r"terms\[0\]\.decay: found 'linear'"),
    (dict(decay_floor=2), r'terms\[0\]\.decay_floor: found 2'),
    (dict(sourse='teacher'), r"terms\[0\]: unknown keys \['sourse'\]; did you mean 'source'"),
    (dict(source='tutor'), r"terms\[0\]\.source: 'tutor' is no source.*\['teacher'\]"),
    (dict(type='Hnt'), r"terms\[0\]\.type: 'Hnt' is not registered; did you mean 'Hint'"),
    (dict(type='ConvAdapter'), r'terms\[0\]'),
    (dict(key='x'), r"terms\[0\]: unknown keys \['key'\]; 'key' is filled in"),
])
def test_wrong_terms_name_the_key(teacher_checkpoint, options, words):
    with pytest.raises(ConfigError, match=words):
        build(cfg_with(teacher_checkpoint, terms=[{**HINT, **options}]))


# -- sources
# ---------------------------------------------------------------------------------------------------------------
def test_one_source_is_a_teacher(teacher_checkpoint):
    short = build(cfg_with(teacher_checkpoint, terms=[HINT]), 1)
    named = build(cfg_with(None, sources=dict(a=of(teacher_checkpoint)), terms=[dict(HINT, source='a')]), 1)
    one, other = (losses_of(model, make_batch()) for model in (short, named))
    assert one.keys() == other.keys() and torch.equal(one['loss_hint_neck'], other['loss_hint_neck'])


def test_each_term_has_its_source_and_a_source_without_terms_is_never_read(teacher_checkpoint, tmp_path):
    other = faster_rcnn_cfg(width=12, channels=20)
    path = save_checkpoint(build(copy.deepcopy(other), 5), tmp_path / 'b.pth')
    model = build(cfg_with(None, sources=dict(a=of(teacher_checkpoint), b=of((other, path)),
                                              unused=of((other, str(tmp_path / 'gone.pth')))),
                           terms=[dict(HINT, source='a'), dict(HINT, source='b', name='b'),
                                  dict(type='RCNNDistillation', source='b'),
                                  dict(HINT, source='unused', loss=dict(loss_weight=0))]), 1)
    losses = losses_of(model, make_batch())
    assert {'loss_hint_neck', 'loss_hint_neck_b', 'loss_cls_distill'} <= losses.keys()
    assert [source.loaded for source in model.sources.values()] == [True, True, False]
    plan = '\n'.join(model.plan())
    assert 'hint neck <- a neck' in plan and 'hint neck <- b neck' in plan


@pytest.mark.parametrize('options, words', [
    (dict(terms=[HINT, HINT]), r"terms\[1\]\.name: terms\[0\] logs loss_hint_neck too; give one of them a name="),
    (dict(terms=HINT), 'terms: found .*a list of dicts'),
    (dict(sources=dict(a=dict(confg='x'))), r"sources\.a: unknown keys \['confg'\]; did you mean 'config'"),
    (dict(sources=[1]), 'sources: found'),
    (dict(sources=dict(a='x.py')), r"sources\.a: found 'x.py'; a dict is expected"),
    (dict(teacher='x.py'), r"teacher: found 'x.py'; a dict is expected, dict\(config=\.\.\., checkpoint=\.\.\.\)"),
    (dict(teacher=dict(config=None)), r'teacher\.config: found None'),
    (dict(ground_truth='no'), r"ground_truth: found 'no'"),
    (dict(ground_truth=False), 'no term is on'),
])
def test_wrong_models_name_the_key(teacher_checkpoint, options, words):
    cfg = cfg_with(teacher_checkpoint)
    cfg.update(options)
    with pytest.raises(ConfigError, match=words):
        build(cfg)


# -- copies
# ----------------------------------------------------------------------------------------------------------------
def test_deep_copies_and_pickles_are_the_same_class(teacher_checkpoint):
    model = build(cfg_with(teacher_checkpoint, terms=[HINT]), 1)
    losses = losses_of(model, make_batch())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model)
        assert torch.equal(losses_of(other, make_batch())['loss_hint_neck'], losses['loss_hint_neck'])


def test_a_step_leaves_nothing_behind(teacher_checkpoint):
    """Features must not wait for the garbage collector: no reference cycle holds them."""
    import gc
    import weakref
    model = build(cfg_with(teacher_checkpoint, terms=[HINT, dict(type='RCNNDistillation')]), 1)
    seen = []
    model.teacher.model.neck.register_forward_hook(lambda _m, _i, output: seen.append(weakref.ref(output[0])))
    gc.disable()
    try:
        losses = losses_of(model, make_batch())
        total(losses).backward()
        del losses
        assert seen and seen[0]() is None
    finally:
        gc.enable()
