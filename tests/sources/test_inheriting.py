"""A student that begins with its teacher's neck and head: which tensors, from which weights, and when."""
import copy
import logging

import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, run_tool, save_checkpoint
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict

from kd_det.compat.checkpoint import load
from kd_det.errors import ConfigError
from kd_det.sources.inheriting import inherit

HINT = dict(type='Hint', layer='neck', adapter=None, loss=dict(type='PKDLoss'))


@pytest.fixture(scope='module')
def taught(tmp_path_factory):
    """(config, file, weights) of a teacher whose backbone alone is wider than the student's."""
    cfg = dense_cfg('retinanet', width=16)
    cfg.bbox_head.norm_cfg = dict(type='BN', requires_grad=True)  # something to fold
    cfg.neck.norm_cfg = dict(type='BN', requires_grad=True)
    model = build(cfg, 7)
    with torch.no_grad():  # statistics that folding would change weights by
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(), module.running_var.uniform_(0.5, 2), module.weight.uniform_(0.5, 2)
    path = save_checkpoint(model, tmp_path_factory.mktemp('t') / 'teacher.pth')
    return cfg, path, model.state_dict()


def student_of(taught, width=8):
    cfg = copy.deepcopy(taught[0])
    cfg.backbone.base_channels = width
    cfg.neck.in_channels = [width * 2**i for i in (1, 2, 3)]
    return cfg


def distilled(taught, terms=(HINT,), **teacher):
    cfg = ConfigDict(student_of(taught))
    cfg.update(student_type=cfg.type, type='Distiller', terms=list(terms),
               teacher=dict(config=copy.deepcopy(taught[0]), checkpoint=taught[1], **teacher))
    return cfg


@pytest.mark.parametrize('fold', [True, False])
def test_the_student_begins_with_what_fits_of_the_checkpoint_also_where_the_teacher_is_folded(taught, fold):
    model = build(distilled(taught, inherit=['neck', 'bbox_head'], fuse_conv_bn=fold), 1)
    assert bool(model.teacher.folded) == fold
    plain = build(student_of(taught), 1).state_dict()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in plain.items())  # nothing yet
    lines = inherit(model, model.sources, begins=True)
    state, weights = model.state_dict(), taught[2]
    kept = [k for k in state if k.startswith('neck.lateral_convs') and k.endswith('.conv.weight')]
    assert len(kept) == 3
    for name, value in state.items():
        inherited = name.partition('.')[0] in ('neck', 'bbox_head') and name not in kept
        assert torch.equal(value, weights[name] if inherited else plain[name]), name
    # the teacher's own are not the student's: training it leaves them
    own = model.teacher.model.state_dict()['bbox_head.retina_cls.weight']
    assert own.data_ptr() != state['bbox_head.retina_cls.weight'].data_ptr()
    assert 'bbox_head begins as the teacher\'s: 16 of 16 tensors' in lines[1] and 'stay' not in lines[1]
    assert 'neck.lateral_convs.0.conv.weight (student (16, 16, 1, 1), teacher (16, 32, 1, 1))' in lines[0]
    assert inherit(model, {}, begins=True) == []


def test_without_it_and_in_a_resumed_run_nothing_changes(taught):
    plain = build(student_of(taught), 1).state_dict()
    without = build(distilled(taught), 1)
    assert inherit(without, without.sources, begins=True) == []
    resumed = build(distilled(taught, inherit=['bbox_head']), 1)
    assert inherit(resumed, resumed.sources, begins=False) == []
    assert inherit(resumed, resumed.sources, begins=True)[0].count('0 of 16')  # the copies are gone
    for model in (without, resumed):
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in plain.items())


def test_it_works_without_any_term(taught):
    """Its own control: inheriting alone."""
    model = build(distilled(taught, terms=(), inherit=['bbox_head']), 1)
    inherit(model, model.sources, begins=True)
    assert torch.equal(model.bbox_head.retina_cls.weight, taught[2]['bbox_head.retina_cls.weight'])


def test_the_plan_says_it(taught):
    plan = '\n'.join(build(distilled(taught, inherit=['neck', 'bbox_head']), 1).plan())
    assert 'the student begins with the teacher\'s neck (45 of 48 tensors), bbox_head (16 of 16 tensors)' in plan
    assert 'begins' not in '\n'.join(build(distilled(taught), 1).plan())


@pytest.mark.parametrize('inherit, message', [
    ('neck', r'teacher.inherit: found \'neck\'; a list'), ([], r'found \[\]'), ([3], r'found \[3\]'),
    (['neck', 'neck'], r'\'neck\' lies in \'neck\''), (['bbox_head', 'bbox_head.retina_cls'], 'lies in \'bbox_head\''),
    (['rpn_head'], r'the student SingleStageDetector has no weights in \'rpn_head\'; its parts'),
    (['backbone.layer4'], r'nothing of \'backbone.layer4\' can be inherited.*student \(64, 32, 3, 3\), teacher'),
], ids=str)
def test_what_cannot_be_meant_is_refused(taught, inherit, message):
    with pytest.raises(ConfigError, match=message):
        build(distilled(taught, inherit=inherit), 1)


def test_a_part_comes_from_one_teacher(taught):
    cfg = distilled(taught, inherit=['bbox_head'])
    cfg.sources = dict(other=dict(cfg.teacher, inherit=['bbox_head.retina_cls']))
    with pytest.raises(ConfigError,
                       match=r'sources.other.inherit: \'bbox_head.retina_cls\' is inherited by teacher\.i'):
        build(cfg, 1)


def test_a_teacher_loaded_in_part_hands_down_what_the_file_has(taught, tmp_path):
    state = {k: v for k, v in taught[2].items() if not k.startswith('bbox_head.retina_cls')}
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    model = build(distilled((taught[0], str(tmp_path / 'part.pth')), inherit=['bbox_head'], strict=False), 1)
    before = model.bbox_head.retina_cls.weight.clone()
    line = inherit(model, model.sources, begins=True)[0]
    assert '14 of 16 tensors' in line and 'bbox_head.retina_cls.weight (not in the checkpoint)' in line
    assert torch.equal(before, model.bbox_head.retina_cls.weight)


def test_through_a_run_and_not_on_resume(run_config, tmp_path, caplog):
    """A two-stage pair of one width of neck and heads, learning rate 0: what a run begins with is what it ends with."""
    wide = faster_rcnn_cfg(width=16)
    teacher = build(wide, 7)
    path = save_checkpoint(teacher, tmp_path / 'teacher.pth')
    cfg = faster_rcnn_cfg()
    cfg.update(student_type=cfg.type, type='Distiller', terms=[HINT], teacher=dict(
        config=wide.to_dict(), checkpoint=path, check=0, inherit=['neck', 'rpn_head', 'roi_head']))
    config, work = run_config(cfg, extra='\nlog_level = \'INFO\'\n'), tmp_path / 'run'
    still = ('--cfg-options', 'optim_wrapper.optimizer.lr=0', 'optim_wrapper.optimizer.weight_decay=0',
             'train_dataloader.dataset.indices=2', 'train_dataloader.batch_size=2', 'train_cfg.val_interval=100')
    run_tool('train', config, '--work-dir', str(work), *still, 'train_cfg.max_epochs=1')
    first = load(str(work / 'epoch_1.pth'))['state_dict']
    own = teacher.state_dict()
    assert torch.equal(first['rpn_head.rpn_conv.weight'], own['rpn_head.rpn_conv.weight'])
    assert torch.equal(first['roi_head.bbox_head.fc_reg.weight'], own['roi_head.bbox_head.fc_reg.weight'])
    log = next(work.glob('*/*.log')).read_text()
    assert 'teacher.inherit: rpn_head begins as the teacher\'s: 6 of 6 tensors' in log
    changed = load(str(work / 'epoch_1.pth'))
    changed['state_dict']['rpn_head.rpn_conv.weight'] += 1
    torch.save(changed, work / 'epoch_1.pth')
    with caplog.at_level(logging.INFO):
        run_tool('train', config, '--work-dir', str(work), *still, '--resume')
    second = load(str(work / 'epoch_2.pth'))['state_dict']
    assert torch.equal(second['rpn_head.rpn_conv.weight'], own['rpn_head.rpn_conv.weight'] + 1)


def test_classes_in_another_order_are_not_inherited(run_config, tmp_path):
    """A hint alone compares no classes; a head taken over does."""
    wide = faster_rcnn_cfg(width=16)
    path = save_checkpoint(build(wide, 7), tmp_path / 'teacher.pth', classes=('square', 'disc'))
    cfg = faster_rcnn_cfg()
    cfg.update(student_type=cfg.type, type='Distiller', terms=[HINT], teacher=dict(
        config=wide.to_dict(), checkpoint=path, check=0, inherit=['roi_head']))
    with pytest.raises(ConfigError, match='names and order must agree'):
        run_tool('train', run_config(cfg), '--work-dir', str(tmp_path / 'run'))


def test_a_step_after_inheriting(taught):
    model = build(distilled(taught, inherit=['neck', 'bbox_head']), 1)
    inherit(model, model.sources, begins=True)
    losses = losses_of(model, make_batch())
    assert float(losses['loss_hint_neck']) > 0
