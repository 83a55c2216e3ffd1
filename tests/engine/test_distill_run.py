"""A distilled run as the command line makes it: what is in its checkpoints, and what it says."""
import copy
import logging
import signal
from pathlib import Path

import pytest
import torch
from conftest import build, faster_rcnn_cfg, run_tool, save_checkpoint

from kd_det.compat.checkpoint import load
from kd_det.engine.distill_hook import DistillHook
from kd_det.engine.term_watch import TermWatch
from kd_det.errors import ConfigError


def distilled_cfg(teacher_checkpoint, **changes):
    cfg = faster_rcnn_cfg()
    cfg.update(student_type=cfg.type, type='FasterRCNNDistiller', teacher=dict(config=teacher_checkpoint[0].to_dict(),
                                                        checkpoint=teacher_checkpoint[1]),
               rpn_distill=dict(), rcnn_distill=dict(), hints=[dict(layer='neck')])
    cfg.update(changes)
    return cfg


EMA = "\ncustom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1)]\n"


@pytest.mark.parametrize('extra', ['', EMA], ids=['plain', 'ema'])
def test_every_checkpoint_is_the_plain_students_and_resume_restores_adapters(teacher_checkpoint, run_config, tmp_path,
                                                                             extra):
    config = run_config(distilled_cfg(teacher_checkpoint), extra=extra)
    work = tmp_path / 'run'
    run_tool('train', config, '--work-dir', str(work), '--cfg-options', 'train_cfg.max_epochs=1',
             'train_cfg.val_interval=1')
    plain = build(faster_rcnn_cfg())
    paths = [work / 'epoch_1.pth', *work.glob('best_*.pth')]
    assert len(paths) == 2
    for path in paths:
        checkpoint = load(str(path))
        assert set(checkpoint['state_dict']) == set(plain.state_dict())
        plain.load_state_dict(checkpoint['state_dict'], strict=True)
        adapters = checkpoint['kd_det']['terms']
        assert adapters and not any('teacher' in k for k in checkpoint['state_dict'])
    first = load(str(work / 'epoch_1.pth'))
    run_tool('train', config, '--work-dir', str(work), '--resume')  # to epoch 2
    second = load(str(work / 'epoch_2.pth'))
    assert second['meta']['epoch'] == 2
    trained = copy.deepcopy(first['kd_det']['terms'])
    initial = build(distilled_cfg(teacher_checkpoint)).terms.own_state_dict()
    for key, value in trained.items():
        assert not torch.equal(value, initial[key]), 'the adapter did not train'
        step = (second['kd_det']['terms'][key] - value).abs().max()
        assert 0 < step <= 2.1e-3 * 2, 'resume must continue from the trained adapter: two AdamW steps of lr 1e-3'
    # the number of parameters in the optimizer is the student's plus the adapters'
    states = first['optimizer']['state']
    student = build(distilled_cfg(teacher_checkpoint))
    assert len(states) == len(list(student.parameters())) == len(list(plain.parameters())) + len(trained)


def test_evaluation_needs_no_teacher(teacher_checkpoint, run_config, tmp_path):
    path = save_checkpoint(build(faster_rcnn_cfg()), tmp_path / 's.pth')
    config = run_config(distilled_cfg(
        teacher_checkpoint, teacher=dict(config='gone.py', checkpoint='gone.pth')))
    run_tool('test', config, path, '--work-dir', str(tmp_path / 'w'))


def test_configs_beside_a_run_are_not_overwritten(teacher_checkpoint, run_config, tmp_path):
    """Evaluation dumps the plain student's config: under another name. Training refuses to replace what was written."""
    path = save_checkpoint(build(faster_rcnn_cfg()), tmp_path / 's.pth')
    config = Path(run_config(distilled_cfg(teacher_checkpoint)))
    before = config.read_text()
    run_tool('test', str(config), path, '--work-dir', str(config.parent))
    assert config.read_text() == before and "FasterRCNNDistiller" not in config.with_name(
        f'{config.stem}_test.py').read_text()
    child = config.with_name('child.py')
    child.write_text(f"_base_ = './{config.name}'\n")
    with pytest.raises(ConfigError, match=r'--work-dir .*child\.py lies there and would be overwritten'):
        run_tool('train', str(child), '--work-dir', str(child.parent))
    assert child.read_text() == f"_base_ = './{config.name}'\n"


def test_resume_from_a_plain_run_is_refused(teacher_checkpoint, run_config, tmp_path):
    work = tmp_path / 'run'
    run_tool('train', run_config(faster_rcnn_cfg(), 'plain.py'), '--work-dir', str(work), '--cfg-options',
             'train_cfg.max_epochs=1')
    with pytest.raises(ConfigError, match='without distillation'):
        run_tool('train', run_config(distilled_cfg(teacher_checkpoint)), '--work-dir', str(work), '--resume')


def test_interruption_leaves_the_students_weights(teacher_checkpoint, run_config, tmp_path, monkeypatch):
    hook = DistillHook.after_train_iter

    def interrupt(self, runner, *args, **kwargs):
        hook(self, runner, *args, **kwargs)
        signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(DistillHook, 'after_train_iter', interrupt)
    handler = signal.getsignal(signal.SIGTERM)
    work = tmp_path / 'run'
    with pytest.raises(SystemExit):
        run_tool('train', run_config(distilled_cfg(teacher_checkpoint)), '--work-dir', str(work))
    checkpoint = load(str(work / 'interrupted.pth'))
    build(faster_rcnn_cfg()).load_state_dict(checkpoint['state_dict'], strict=True)
    assert checkpoint['kd_det']['terms'] and not (work / 'last_checkpoint').exists()
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.parametrize('names, words', [(('square', 'disc'), 'names and order must agree'),
                                          (('a', 'b'), 'must agree')])
def test_class_names_that_differ_stop_the_run(run_config, tmp_path, names, words):
    cfg = faster_rcnn_cfg(width=16, channels=24)
    path = save_checkpoint(build(cfg), tmp_path / 't.pth', classes=names)
    with pytest.raises(ConfigError, match=words):
        run_tool('train', run_config(distilled_cfg((cfg, path))), '--work-dir', str(tmp_path / 'run'))


# -- watching the terms -------------------------------------------------------------------------------------------
class FakeRunner:
    """As much of a runner as the hook looks at."""

    def __init__(self, terms):
        self.model = type('Model', (torch.nn.Module,), {})()
        self.model.distill_terms, self.model.terms, self.model.unlabelled = terms, [], None
        self.iter = 0
        self.logger = logging.getLogger('kd_det_test_hook')


def watch(outputs, caplog, patience=3):
    runner, hook = FakeRunner(['loss_a', 'loss_b']), DistillHook(patience=patience)
    with caplog.at_level(logging.WARNING, logger='kd_det_test_hook'):
        for output in outputs:
            hook.after_train_iter(runner, 0, outputs=output)
            runner.iter += 1
    return [record.getMessage() for record in caplog.records]


def test_a_term_that_stays_zero_is_reported_by_name_once(caplog):
    said = watch([dict(loss_a=torch.tensor(0.0), loss_b=torch.tensor(1.0 + i)) for i in range(7)], caplog)
    assert len(said) == 1 and 'loss_a' in said[0] and 'exactly zero' in said[0]


def test_a_missing_term_is_reported_by_name(caplog):
    said = watch([dict(loss_a=torch.tensor(1.0 + i)) for i in range(3)], caplog)
    assert len(said) == 1 and 'loss_b' in said[0] and 'missing' in said[0]


def test_a_term_that_is_not_finite_is_reported_by_name(caplog):
    said = watch([dict(loss_a=torch.tensor(float('nan')), loss_b=torch.tensor(1.0 + i)) for i in range(3)], caplog)
    assert len(said) == 1 and 'loss_a is nan' in said[0]


def test_a_constant_term_is_reported_with_its_likely_cause(caplog):
    said = watch([dict(loss_a=torch.tensor(0.5), loss_b=torch.tensor(1.0 + i)) for i in range(3)], caplog)
    assert len(said) == 1 and 'loss_a has been exactly 0.5' in said[0] and 'lr_mult=0' in said[0]
    caplog.clear()
    turns = [dict(loss_a=torch.tensor(float(i % 2 + 1)), loss_b=torch.tensor(1.0 + i)) for i in range(8)]
    assert watch(turns, caplog) == []


def test_a_term_that_drowns_the_task_is_reported(caplog):
    """The task loss is the total without the terms: 1 here."""
    steps = [dict(loss_a=torch.tensor(101.0 + i), loss_b=torch.tensor(99.0 - i), loss=torch.tensor(201.0))
             for i in range(4)]
    said = watch(steps, caplog)
    assert len(said) == 1 and 'loss_a has been above 100 times the task loss' in said[0] and 'loss_weight' in said[0]


def test_the_size_of_terms_beside_the_task_is_said_after_fifty_steps(caplog):
    caplog.set_level(logging.INFO, logger='kd_det_test_hook')
    runner, hook = FakeRunner(['loss_a', 'teacher_positives']), DistillHook(patience=100)
    for i in range(51):
        hook.after_train_iter(runner, 0, outputs=dict(loss=torch.tensor(6.0), loss_a=torch.tensor(4.0 + (i % 2) * 0.5),
                                                      teacher_positives=torch.tensor(30.0 + i)))
    said = [record.getMessage() for record in caplog.records]
    # mean of 4.0 and 4.5 is 4.25, of the task 2.0 and 1.5 it is 1.75
    assert said == ['Distillation terms, mean of the first 50 steps: loss_a 4.25 (2.4 times the task loss); '
                    'the task loss is 1.75']


def test_a_term_that_begins_later_has_its_own_first_fifty_steps(caplog):
    """Beside the task loss of these steps; 50 steps of which it acts in ten say nothing of it."""
    caplog.set_level(logging.INFO, logger='kd_det_test_hook')
    runner, seen = FakeRunner([]), TermWatch(patience=1000)
    for i in range(95):
        values = dict(loss_a=torch.tensor(1.0 + 0.01 * i), loss=torch.tensor(3.0 + 0.01 * i))
        if i >= 40:
            values.update(loss_b=torch.tensor(5.0), loss=torch.tensor(18.0 + 0.01 * i))
        seen.see(runner, [name for name in ('loss_a', 'loss_b') if name in values], values)
    sizes = [record.getMessage() for record in caplog.records if 'mean of' in record.getMessage()]
    # loss_a: 1 + 0.01 * 24.5; task 2 in 40 steps, 12 in 10 of its first 50
    begin = 'Distillation terms, mean of the first 50 steps: '
    assert sizes == [f'{begin}loss_a 1.245 (0.31 times the task loss); the task loss is 4',
                     f'{begin}loss_b 5 (0.42 times the task loss); the task loss is 12']


def test_zeros_in_between_are_no_report(caplog):
    ones, zeros = dict(loss_a=torch.tensor(1.0), loss_b=torch.tensor(1.0)), dict(loss_a=torch.tensor(0.0),
                                                                                 loss_b=torch.tensor(0.0))
    assert watch([zeros, zeros, ones] * 3, caplog) == []


def test_a_term_whose_schedule_rests_is_not_missed(caplog):
    term = type('Resting', (), dict(schedule=type('Off', (), dict(factor=staticmethod(lambda: 0.0))),
                                    names=lambda self: ['loss_b'],
                                    acts_on=lambda self, labelled: labelled, images=None))()
    original = FakeRunner.__init__

    def init(self, terms):
        original(self, terms)
        self.model.terms = [term]
    FakeRunner.__init__ = init
    try:
        assert watch([dict(loss_a=torch.tensor(1.0 + i)) for i in range(5)], caplog) == []
    finally:
        FakeRunner.__init__ = original


# -- another teacher, another student, the plan -------------------------------------------------------------------
def test_command_line_swaps_teacher_and_student_and_prints_the_plan(teacher_checkpoint, run_config, tmp_path, capsys):
    cfg, path = teacher_checkpoint
    (tmp_path / 'teacher.py').write_text(f'model = {cfg.to_dict()!r}\n')
    config = run_config(distilled_cfg(teacher_checkpoint, teacher=dict(config='gone.py', checkpoint='gone.pth')))
    student = run_config(faster_rcnn_cfg(channels=32), 'student.py')
    run_tool('train', config, '--print-plan', '--teacher', str(tmp_path / 'teacher.py'), path, '--student', student)
    plan = capsys.readouterr().out
    assert 'student level 0 (32, 64, 64) <- teacher level 0 (24, 64, 64) through ConvAdapter' in plan
    assert path in plan and 'R-CNN: hard_weight 0.5' in plan
    run_tool('train', student, '--print-plan')
    assert 'nothing is distilled' in capsys.readouterr().out
    with pytest.raises(ConfigError, match='no distiller'):
        run_tool('train', student, '--student', student)
    with pytest.raises(ConfigError, match='has no teacher'):
        run_tool('train', student, '--teacher', 'a', 'b')


def test_cross_resolution_run(tiny_coco, run_config, tmp_path):
    """Train a half-resolution student end to end: two views, checkpoint, evaluation."""
    cfg = faster_rcnn_cfg()
    path = save_checkpoint(build(cfg), tmp_path / 't.pth')
    extra = ("\ntrain_dataloader['dataset'] = dict(type='TwoViewDataset', scale_factor=2, "
             "dataset=dict(train_dataloader['dataset'], pipeline=[dict(t, scale=(64, 48)) if t['type'] == 'Resize' "
             "else t for t in train_pipeline]))\n")
    distilled = distilled_cfg((cfg, path), teacher=dict(config=cfg.to_dict(), checkpoint=path, scale_factor=2))
    work = tmp_path / 'run'
    run_tool('train', run_config(distilled, extra=extra), '--work-dir', str(work), '--cfg-options',
             'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
    build(faster_rcnn_cfg()).load_state_dict(load(str(work / 'epoch_1.pth'))['state_dict'], strict=True)
