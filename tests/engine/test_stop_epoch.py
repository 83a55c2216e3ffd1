"""Terms that stop, in a runner: from that epoch on the run is plain training, bit for bit; and what a run says of
sizes.
"""
import copy
import re

import pytest
import torch
from conftest import build, faster_rcnn_cfg, run_tool, save_checkpoint
from dense_detectors import dense_cfg

from kd_det.compat.checkpoint import load
from kd_det.engine import term_watch
from kd_det.engine.term_watch import TermWatch

CLIPPED = """
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=100)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1),
                     clip_grad=dict(max_norm=1.0))
train_dataloader.update(batch_size=2)
train_dataloader['dataset'].update(indices=4)
"""


def pair(kind, folder):
    """(student, teacher's keys) of a kind of detector."""
    make = faster_rcnn_cfg if kind == 'two-stage' else lambda **more: dense_cfg(kind, **more)
    teacher = make(width=16)
    path = save_checkpoint(build(teacher, 7), folder / 'teacher.pth')
    return make(), dict(config=teacher.to_dict(), checkpoint=path, check=0)


STOPS = dict(stop_epoch=1)
PKD = dict(type='Hint', layer='neck', adapter=None, loss=dict(type='PKDLoss'))
CASES = {
    'gfl': dict(terms=[dict(type='LD', **STOPS), dict(PKD, **STOPS)]),
    # an adapter keeps what it has learned, and neither it nor its optimizer's state moves anything
    'gfl-adapter': dict(terms=[dict(type='Hint', layer='neck', decay='cosine', **STOPS)]),
    'two-stage': dict(terms=[dict(type='RPNDistillation', **STOPS), dict(type='RCNNDistillation', **STOPS)]),
    'paa': dict(terms=[dict(type='LabelAssignment', **STOPS), dict(type='SoftLabel', **STOPS)]),
}


def without_adapters(checkpoint, parameters):
    """The same checkpoint as a plain run would have written it: the optimizer holds the student alone."""
    group = checkpoint['optimizer']['param_groups'][0]
    group['params'] = group['params'][:parameters]
    states = checkpoint['optimizer']['state']
    checkpoint['optimizer']['state'] = {i: state for i, state in states.items() if i < parameters}
    return checkpoint


@pytest.mark.parametrize('case', [pytest.param(case, marks=pytest.mark.slow) if case == 'paa' else case
                                  for case in CASES])
def test_from_the_epoch_in_which_it_stops_the_run_is_plain_training(case, run_config, tmp_path):
    """Trap 7."""
    student, teacher = pair(case.partition('-adapter')[0], tmp_path)
    cfg = student.copy()
    cfg.update(student_type=student.type, type='Distiller', teacher=teacher, **CASES[case])
    run_tool('train', run_config(cfg, 'distil.py', CLIPPED), '--work-dir', str(tmp_path / 'distilled'))
    state = load(str(tmp_path / 'distilled' / 'epoch_1.pth'))
    count = len(list(build(student).parameters()))
    assert (len(state['optimizer']['param_groups'][0]['params']) > count) == (case == 'gfl-adapter')
    torch.save(without_adapters(state, count), tmp_path / 'state.pth')
    run_tool('train', run_config(student, 'plain.py', CLIPPED), '--work-dir', str(tmp_path / 'plain'),
             '--resume', str(tmp_path / 'state.pth'), '--resume-anyway')
    ours, theirs = (load(str(tmp_path / name / 'epoch_2.pth')) for name in ('distilled', 'plain'))
    begin = state['state_dict']
    for name, value in theirs['state_dict'].items():
        assert torch.equal(value, ours['state_dict'][name]), name
    assert any(not torch.equal(value, begin[name]) for name, value in theirs['state_dict'].items())
    for i, one in theirs['optimizer']['state'].items():
        assert all(torch.equal(one[key], ours['optimizer']['state'][i][key]) for key in one)
    for name, value in ours['kd_det']['terms'].items():
        assert torch.equal(value, state['kd_det']['terms'][name]), 'an adapter moved after its term had stopped'


@pytest.mark.slow
def test_a_term_that_does_not_stop_trains_the_student_otherwise(run_config, tmp_path):
    """What the test above would see."""
    student, teacher = pair('gfl', tmp_path)
    weights = []
    for stops in (STOPS, {}):
        cfg = student.copy()
        cfg.update(student_type=student.type, type='Distiller', teacher=teacher, terms=[dict(PKD, **stops)])
        run_tool('train', run_config(cfg, 'distil.py', CLIPPED), '--work-dir', str(tmp_path / f'stops_{bool(stops)}'))
        weights.append([load(str(tmp_path / f'stops_{bool(stops)}' / f'epoch_{i}.pth'))['state_dict'] for i in (1, 2)])
    (first, second), (one, two) = weights
    assert all(torch.equal(value, one[name]) for name, value in first.items())
    assert any(not torch.equal(value, two[name]) for name, value in second.items())


def test_a_run_says_how_large_each_of_several_terms_is_beside_the_task_loss(run_config, tmp_path, monkeypatch):
    """Of two teachers, with gradients that are accumulated over two batches."""
    monkeypatch.setattr(term_watch, 'SIZES_AFTER', 3)
    seen, see = [], TermWatch.see
    monkeypatch.setattr(TermWatch, 'see', lambda self, runner, names, outputs: (
        seen.append({name: float(value) for name, value in outputs.items()}), see(self, runner, names, outputs)))
    student, teacher = pair('gfl', tmp_path)
    cfg = student.copy()
    cfg.update(student_type=student.type, type='Distiller', sources=dict(a=teacher, b=copy.deepcopy(teacher)),
               terms=[dict(type='LD', source='a'), dict(PKD, source='b')])
    extra = CLIPPED + 'log_level = \'INFO\'\noptim_wrapper.update(accumulative_counts=2)\n'
    run_tool('train', run_config(cfg, extra=extra), '--work-dir', str(tmp_path / 'run'))
    said = re.findall(r'mean of the first 3 steps: (.*)', next((tmp_path / 'run').glob('*/*.log')).read_text())
    assert len(said) == 1
    names = ('loss_ld', 'loss_ld_vlr', 'loss_ld_cls', 'loss_hint_neck')
    task = sum(step['loss'] - sum(step[name] for name in names) for step in seen[:3]) / 3
    own = sum(sum(step[name] for name in ('loss_cls', 'loss_bbox', 'loss_dfl')) for step in seen[:3]) / 3
    assert task == pytest.approx(own, rel=1e-5)  # what else is logged, such as counts, is no loss
    found = re.findall(r'(\w+) ([\d.e+-]+) \(([\d.e+-]+) times the task loss\)', said[0])
    assert [name for name, *_ in found] == list(names) and f'the task loss is {task:.4g}' in said[0]
    for name, value, share in found:
        mean = sum(step[name] for step in seen[:3]) / 3
        assert float(value) == pytest.approx(mean, rel=1e-3) and float(share) == pytest.approx(mean / task, rel=0.1)
