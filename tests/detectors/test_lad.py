"""LADDistiller: MMDetection's own LAD on PAA, plain training where it is off, and what every head must keep."""
import copy
import functools
from pathlib import Path

import pytest
import torch
from conftest import build, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub

from kd_det.errors import AssignmentMismatch, ConfigError
from kd_det.plain import student_model

ROOT = Path(__file__).parents[2]
DYNAMIC = ('paa', 'rtmdet', 'tood', 'yolox', 'ddod')
BATCH = dict(sizes=((64, 96),) * 3, objects=(3, 0, 4), seed=3)


@pytest.fixture(autouse=True)
def epoch():
    hub = MessageHub.get_current_instance()
    before = hub.get_info('epoch')
    hub.update_info('epoch', 0)
    yield hub
    hub.update_info('epoch', before if before is not None else 0)


def stirred(model):
    """Fresh heads all predict the same; these do not."""
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for layer in getattr(model.bbox_head, 'rtm_reg', ()):
            layer.bias += 2
    return model


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """kind -> (config, checkpoint) of a wider teacher of that kind."""
    folder = tmp_path_factory.mktemp('teachers')

    @functools.cache
    def of(kind):
        return dense_cfg(kind, width=16), save_checkpoint(stirred(build(dense_cfg(kind, width=16), 7)),
                                                          folder / f'{kind}.pth')
    return of


def lad_cfg(student, taught, teacher_options=None, **lad):
    cfg = ConfigDict(copy.deepcopy(student))
    cfg.update(student_type=cfg.type, type='LADDistiller', **lad, teacher=dict(
        config=copy.deepcopy(taught[0]), checkpoint=taught[1],
        **{**dict(fuse_conv_bn=False, channels_last=False), **(teacher_options or {})}))
    return cfg


def train(model, steps, seed=0, lr=0.01):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=0.9)
    values = []
    for step in range(steps):
        loss = total(losses_of(model, make_batch(**{**BATCH, 'seed': seed + step}), seed=step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        values.append(loss.detach())
    return values


def mmdet_lad(student_cfg, teacher_cfg):
    """MMDetection's own LAD detector of the two."""
    student_cfg, teacher_cfg = copy.deepcopy(student_cfg), copy.deepcopy(teacher_cfg)
    student_cfg.bbox_head.type = teacher_cfg.bbox_head.type = 'LADHead'
    student_cfg.update(type='LAD', teacher_backbone=teacher_cfg.backbone, teacher_neck=teacher_cfg.neck,
                       teacher_bbox_head=teacher_cfg.bbox_head)
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(student_cfg)
    model.train()
    return model


@pytest.mark.parametrize('trained', [0, 6])
def test_paa_reproduces_the_loss_of_mmdetections_lad(trained, tmp_path):
    student_cfg, teacher_cfg = dense_cfg('paa'), dense_cfg('paa', width=16)
    student, master = stirred(build(student_cfg, 1)), stirred(build(teacher_cfg, 2))
    for model in (student, master):
        train(model, trained)
    path = save_checkpoint(master, tmp_path / 't.pth')
    ours = build(lad_cfg(student_cfg, (teacher_cfg, path)), 3)
    ours.load_state_dict(student.state_dict(), strict=True)
    theirs = mmdet_lad(student_cfg, teacher_cfg)
    theirs.load_state_dict(student.state_dict(), strict=False)
    theirs.teacher_model.load_state_dict(master.state_dict(), strict=True)
    batched = build(lad_cfg(dense_cfg('paa', type='BatchedPAAHead'), (teacher_cfg, path), dict(
        cfg_options={'bbox_head.type': 'BatchedPAAHead'})), 3)
    batched.load_state_dict(student.state_dict(), strict=True)
    assert ours.terms[0].box_loss_average == 'paper'
    reference = losses_of(theirs, make_batch(**BATCH))
    total(reference).backward()
    for model in (ours, batched):
        losses = losses_of(model, make_batch(**BATCH))
        assert losses.pop('teacher_positives') > 0 and losses.keys() == reference.keys()
        for name in losses:
            assert torch.allclose(losses[name], reference[name], rtol=1e-5), name
        total(losses).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for name, p in theirs.named_parameters():
            if not name.startswith('teacher_model') and p.grad is not None:
                assert torch.allclose(p.grad, gradients[name], rtol=1e-3, atol=1e-5), name
    weighted = build(lad_cfg(student_cfg, (teacher_cfg, path), box_loss_average='head'), 3)
    weighted.load_state_dict(student.state_dict(), strict=True)
    losses = losses_of(weighted, make_batch(**BATCH))
    assert torch.allclose(losses['loss_cls'], reference['loss_cls'], rtol=1e-5)
    assert not torch.allclose(losses['loss_bbox'], reference['loss_bbox'], rtol=1e-2)


@pytest.mark.parametrize('kind', ['paa', 'tood'])
def test_lad_off_is_plain_training_bit_for_bit(kind, teacher, epoch):
    epoch.update_info('epoch', 100)
    plain = build(dense_cfg(kind), 1)
    off = build(lad_cfg(dense_cfg(kind), teacher(kind), lad=False), 1)
    assert off.distill_terms == [] and 'NOTHING IS DISTILLED' in off.plan()[-1]
    assert all(torch.equal(a, b) for a, b in zip(train(plain, 3), train(off, 3)))
    one, other = plain.state_dict(), off.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize('kind', DYNAMIC)
def test_a_student_with_its_teachers_weights_has_the_plain_loss(kind, teacher, epoch):
    epoch.update_info('epoch', 100)
    cfg, path = teacher(kind)
    model = build(lad_cfg(cfg, (cfg, path), box_loss_average='head'), 1)
    plain = build(cfg, 1)
    model.load_state_dict(torch.load(path, weights_only=False)['state_dict'], strict=True)
    plain.load_state_dict(model.state_dict(), strict=True)
    expected = losses_of(plain.eval(), make_batch(**BATCH))
    found = losses_of(model.eval(), make_batch(**BATCH))
    assert found.keys() == {*expected, 'teacher_positives'} and found['teacher_positives'] > 0
    assert torch.allclose(total(found), total(expected), rtol=1e-6)


@pytest.mark.parametrize('kind', DYNAMIC)
def test_training_moves_the_student_only_and_prediction_is_the_plain_detectors(kind, teacher):
    model = stirred(build(lad_cfg(dense_cfg(kind), teacher(kind)), 1))
    frozen = copy.deepcopy(model.teacher.model.state_dict())
    own = build(dense_cfg(kind), 1)
    own_loss = total(losses_of(model, make_batch(**BATCH)))
    start = copy.deepcopy(model.state_dict())
    values = train(model, 2)
    assert own_loss.isfinite() and torch.stack(values).isfinite().all()
    after = model.teacher.model.state_dict()
    assert all(torch.equal(frozen[k], after[k]) for k in frozen)
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.model.parameters())
    assert not model.teacher.model.bbox_head.training
    assert any(not torch.equal(start[k], v) for k, v in model.state_dict().items())
    assert model.state_dict().keys() == own.state_dict().keys()
    own.load_state_dict(model.state_dict(), strict=True)
    data = own.data_preprocessor(make_batch(**BATCH), False)
    model.eval(), own.eval()
    with torch.no_grad():
        for a, b in zip(model.predict(data['inputs'], copy.deepcopy(data['data_samples'])),
                        own.predict(data['inputs'], copy.deepcopy(data['data_samples']))):
            assert torch.equal(a.pred_instances.bboxes, b.pred_instances.bboxes)
            assert torch.equal(a.pred_instances.scores, b.pred_instances.scores)
    plain = student_model(lad_cfg(dense_cfg(kind), teacher(kind), lad=True, copy_quality=True))
    assert plain == dense_cfg(kind)


def test_an_ema_copy_shares_the_teacher_and_saves_the_students_weights(teacher):
    from mmengine.model import ExponentialMovingAverage
    model = build(lad_cfg(dense_cfg('rtmdet'), teacher('rtmdet')), 1)
    ema = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    assert ema.module.teacher is model.teacher
    train(model, 1)
    ema.update_parameters(model)
    train(model, 1)
    ema.update_parameters(model)
    assert ema.module.state_dict().keys() == model.state_dict().keys() == build(dense_cfg('rtmdet')).state_dict().keys()
    assert total(losses_of(ema.module, make_batch(**BATCH))).isfinite()


def test_tood_uses_the_teachers_dynamic_assignment_from_the_first_epoch_on(teacher, epoch):
    """Its own schedule is static for 4 epochs, because a fresh network's predictions mean little."""
    cfg = dense_cfg('tood')
    at_once = build(lad_cfg(cfg, teacher('tood')), 1)
    scheduled = build(lad_cfg(cfg, teacher('tood'), dynamic_from_start=False), 1)
    plain = build(cfg, 1)
    assert plain.bbox_head.initial_epoch == scheduled.bbox_head.initial_epoch == 4
    assert any('not in the first 4 epochs' in line for line in scheduled.plan())
    first = {name: total(losses_of(model, make_batch(**BATCH))) for name, model in
             (('at_once', at_once), ('scheduled', scheduled), ('plain', plain))}
    assert torch.equal(first['scheduled'], first['plain']) and not torch.equal(first['at_once'], first['plain'])
    for model in (at_once, scheduled, plain):
        model.eval()  # batch norm statistics have moved alike
    epoch.update_info('epoch', 4)
    later = [total(losses_of(model, make_batch(**BATCH))) for model in (at_once, scheduled, plain)]
    assert torch.equal(later[0], later[1]) and not torch.equal(later[1], later[2])


@pytest.mark.parametrize('kind', DYNAMIC)
def test_a_batch_without_objects(kind, teacher):
    model = build(lad_cfg(dense_cfg(kind), teacher(kind), hints=[dict(layer='neck')]), 1)
    loss = total(losses_of(model, make_batch(sizes=((96, 128),) * 2, objects=(0, 0))))
    loss.backward()
    assert loss.isfinite()


def test_hints_and_hooks_stay_in_order(teacher):
    hints = [dict(layer='neck'), dict(layer='bbox_head.cls_convs.0')]
    model = build(lad_cfg(dense_cfg('paa'), teacher('paa'), hints=hints), 1)
    losses = losses_of(model, make_batch(**BATCH))
    assert model.distill_terms == ['loss_hint_neck', 'loss_hint_bbox_head_cls_convs_0']
    assert all(float(losses[name]) > 0 for name in model.distill_terms)
    assert not model.bbox_head.loss_bbox._forward_pre_hooks


def test_pairs_that_do_not_fit_are_refused_at_build_time(teacher):
    def refused(match, student, taught, options=None, **lad):
        with pytest.raises(ConfigError, match=match):
            build(lad_cfg(student, taught, options, **lad))
    paa = teacher('paa')
    refused('only at priors.*SoftLabelDistiller', dense_cfg('atss'), paa)
    refused('teacher.config: bbox_head: nothing to distil', dense_cfg('ddod'), teacher('atss'))
    refused('decide alike', dense_cfg('ddod'), paa)
    refused('decide alike', dense_cfg('tood'), teacher('rtmdet'))
    refused('num_classes: 3, the teacher has 2', dense_cfg('paa', num_classes=3), paa)
    refused('scale_factor: found 2', dense_cfg('paa'), paa, dict(scale_factor=2))
    refused("box_loss_average: found 'mean'", dense_cfg('paa'), paa, box_loss_average='mean')
    refused("'paper' is for PAA", dense_cfg('rtmdet'), teacher('rtmdet'), box_loss_average='paper')
    other = dense_cfg('paa')
    other.bbox_head.anchor_generator.octave_base_scale = 4
    refused('priors of level 0 differ', other, paa)


def test_a_teacher_that_sees_other_ground_truths_is_an_error_at_run_time(teacher):
    model = build(lad_cfg(dense_cfg('paa'), teacher('paa')), 1)
    original = model.teacher.model.bbox_head.loss_by_feat

    def other_scene(*arguments):
        *outputs, truths, metas, ignored = arguments
        truths = copy.deepcopy(truths)
        truths[0].bboxes += 1
        return original(*outputs, truths, metas, ignored)
    model.teacher.model.bbox_head.loss_by_feat = other_scene
    with pytest.raises(AssignmentMismatch, match='ground-truth boxes'):
        losses_of(model, make_batch(**BATCH))


@pytest.mark.parametrize('folder', ['lad', 'soft_label'])
def test_configs_are_diffs_over_their_baselines(folder):
    """What distillation adds, taken away, leaves the baseline: nothing else may differ between the runs."""
    from mmengine.config import Config
    paths = sorted((ROOT / 'configs' / folder).glob('*.py'))
    assert paths
    for path in paths:
        cfg, stem = Config.fromfile(str(path)), path.stem.rsplit('_', 1)[0]
        family = stem.split('_')[0]
        ours = ROOT / 'configs' / family / f'{stem}.py'
        if stem.startswith('ddod_r18'):
            continue  # its baseline exists with ResNet-50 only
        base = Config.fromfile(str(ours)) if ours.is_file() else Config.fromstring(
            f"_base_ = 'mmdet::{family}/{stem}.py'", '.py')
        plain, own = student_model(cfg.model).to_dict(), base.model.to_dict()
        assert plain.pop('type') == 'SingleStageDetector' and own.pop('type')
        assert plain == own, path
        rest, others = cfg.to_dict(), base.to_dict()
        # MMDetection's RTMDet states the batch size of another schedule, which our recipes correct
        for key in ('model', 'custom_imports', *([] if ours.is_file() else ['auto_scale_lr'])):
            rest.pop(key, None), others.pop(key, None)
        assert rest == others, path
        taught = cfg.model.teacher.config
        assert taught.startswith('mmdet::') or (ROOT / taught).is_file(), path


@pytest.mark.parametrize('kind', ['paa', 'rtmdet', 'tood', 'ddod'])
def test_mixed_precision_trains(kind, teacher):
    """Under autocast the teacher decides from bfloat16 scores; assignments replay and every term stays finite."""
    model = build(lad_cfg(dense_cfg(kind), teacher(kind), soft_label=dict()))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = losses_of(model, make_batch(**BATCH))
    assert torch.isfinite(total(losses)) and losses['loss_cls_distill'] > 0
    total(losses).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
