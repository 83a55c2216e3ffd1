"""A loss that is not finite ends a run: terms and images are named, the state before the step is kept."""
import pytest
import torch
from conftest import faster_rcnn_cfg, run_tool

from kd_det.compat.checkpoint import load
from kd_det.engine.finite_hook import FiniteHook, not_finite
from kd_det.errors import TrainingDiverged


@pytest.fixture
def diverging(run_config, tmp_path, monkeypatch):
    """Run a plain detector whose box loss is NaN in its third step."""
    from mmdet.models.roi_heads import StandardRoIHead
    forward, calls = StandardRoIHead.loss, []

    def taught(self, *args, **kwargs):
        calls.append(1)
        losses = forward(self, *args, **kwargs)
        return dict(losses, loss_bbox=losses['loss_bbox'] * float('nan')) if len(calls) == 3 else losses
    monkeypatch.setattr(StandardRoIHead, 'loss', taught)
    return run_config(faster_rcnn_cfg()), tmp_path / 'run'


def test_the_run_stops_names_the_cause_and_keeps_the_state_before_the_step(diverging):
    config, work = diverging
    with pytest.raises(TrainingDiverged, match=r'loss is nan at iteration 3.*Not finite: loss_bbox is nan') as error:
        run_tool('train', config, '--work-dir', str(work))
    assert str(error.value).count('.png') == 4 and 'loss_cls' not in str(error.value)
    first, kept = load(str(work / 'epoch_1.pth')), load(str(work / 'diverged.pth'))
    # an epoch has two steps, so the state before the third is the first epoch's: weights, statistics and moments
    assert all(torch.equal(first['state_dict'][k], v) for k, v in kept['state_dict'].items())
    for index, moments in first['optimizer']['state'].items():
        assert torch.equal(moments['exp_avg'], kept['optimizer']['state'][index]['exp_avg'])
    assert (work / 'last_checkpoint').read_text().endswith('epoch_1.pth') and not (work / 'epoch_2.pth').exists()


def test_weights_that_are_not_finite_are_not_saved(run_config, tmp_path, monkeypatch):
    """A gradient that is NaN beside a finite loss, in the last step of an epoch."""
    step = torch.optim.AdamW.step

    def poison(self, *args, **kwargs):
        poison.steps += 1
        if poison.steps == 4:
            self.param_groups[0]['params'][0].grad.fill_(float('nan'))
        return step(self, *args, **kwargs)
    poison.steps = 0
    monkeypatch.setattr(torch.optim.AdamW, 'step', poison)
    work = tmp_path / 'run'
    with pytest.raises(TrainingDiverged, match=r'iteration \d+ 1 tensors.*backbone.conv1.weight'):
        run_tool('train', run_config(faster_rcnn_cfg()), '--work-dir', str(work))
    assert not not_finite(load(str(work / 'epoch_1.pth'))['state_dict']) and not (work / 'epoch_2.pth').exists()


def test_the_flag_is_read_without_a_scalar_being_asked_of_the_device():
    from torch.utils._python_dispatch import TorchDispatchMode

    from kd_det.engine.finite_hook import _Flag

    class Reads(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.found += function is torch.ops.aten._local_scalar_dense.default
            return function(*args, **(kwargs or {}))

    with Reads() as mode:
        assert _Flag(torch.tensor(1.0)).read()
        assert not _Flag(torch.tensor(float('inf'))).read() and not _Flag(torch.tensor([1.0, float('nan')])).read()
    assert mode.found == 0


def test_overflow_of_the_sum_is_told_from_a_term():
    hook = FiniteHook()
    assert hook.priority == 'LOWEST'
    from kd_det.engine.finite_hook import _terms
    losses = dict(loss_a=torch.tensor(3e38), loss_b=[torch.tensor(3e38)], acc=torch.tensor(float('nan')))
    assert _terms(losses, torch.tensor(float('inf'))) == 'Each term is finite, their sum is not'
    assert 'levels [1]' in _terms(dict(loss_a=[torch.tensor(1.0), torch.tensor(float('inf'))]), torch.tensor(1.0))


@pytest.mark.parametrize('part, name', [('state_dict', 'a'), ('kd_det', 'kd_det.peer.a')])
def test_a_second_network_that_is_not_finite_is_not_saved_either(part, name):
    checkpoint = dict(state_dict=dict(a=torch.ones(2)), kd_det=dict(peer=dict(a=torch.ones(2)), terms={}, written={}))
    runner = type('R', (), dict(iter=3))
    FiniteHook().before_save_checkpoint(runner, checkpoint)
    (checkpoint[part] if part == 'state_dict' else checkpoint[part]['peer'])['a'][1] = float('nan')
    with pytest.raises(TrainingDiverged, match=rf'iteration 4 1 tensors .* not finite, e.g. {name}:'):
        FiniteHook().before_save_checkpoint(runner, checkpoint)
