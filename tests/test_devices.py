"""Devices without a device: every loss, adapter and criterion, the mixture fit, and a step of every method on a GPU
that is pretended. What mixes devices fails.
"""
import pytest
import torch
from conftest import build, make_batch
from every_loss import CHANNELS, LOSSES, arguments
from methods import METHODS
from pretend_cuda import DEVICE, OnGPU, move_module, moved, pretended
from torch._subclasses.fake_tensor import FakeTensorMode

from kd_det.adapters import ConvAdapter, GlobalContext, IdentityAdapter, LinearAdapter, align_scale
from kd_det.assignment import criteria
from kd_det.assignment.gmm import fit_two_gaussians

pytestmark = pytest.mark.skipif(torch.cuda.is_available(),
                                reason='a real GPU is there: the tests that need one run on it')
ADAPTERS = [ConvAdapter(CHANNELS, 3), ConvAdapter(CHANNELS, 3, num_layers=2, norm='GN', resize='interpolate'),
            ConvAdapter(CHANNELS, 3, num_layers=2, norm='BN'), IdentityAdapter(CHANNELS, CHANNELS)]


def test_what_mixes_devices_is_found():
    here, there = torch.ones(3, 4), OnGPU(torch.ones(3, 4))
    with pretended():
        assert (there + 1).device == torch.zeros(2, device=DEVICE).device == there.new_zeros(1).device == DEVICE
        assert float(there.sum()) == 12.0 and torch.stack([there.sum(), there.max()]).tolist() == [12.0, 1.0]
        assert there[here[:, 0] > 0].device == DEVICE  # PyTorch takes indices of the CPU
        assert (there * torch.tensor(2.0)).device == DEVICE  # and numbers
        for mixed in (lambda: there + here, lambda: torch.cat([there, here]), lambda: here @ there.T,
                      lambda: torch.where(here > 0, there, 0.0), lambda: there.__setitem__(0, here[0])):
            with pytest.raises(RuntimeError, match='a tensor of the CPU'):
                mixed()


@pytest.mark.parametrize('name', LOSSES)
def test_losses_on_fake_tensors_of_a_gpu(name):
    """PyTorch's own FakeTensorMode, which knows the rules of devices; no values."""
    with FakeTensorMode(), torch.no_grad():
        loss = LOSSES[name]()
        if any(True for _ in loss.parameters()):
            pytest.skip('its parts are moved to a device that is not there; pretended below')
        tensors, more = arguments(loss, lambda *shape: torch.randn(*shape, device='cuda'))
        assert loss(*tensors, **more).device.type == 'cuda'


@pytest.mark.parametrize('name', LOSSES)
def test_losses_on_a_pretended_gpu_give_what_they_give_here(name):
    loss = LOSSES[name]()
    tensors, more = arguments(loss, torch.randn)
    expected = loss(*tensors, **more)
    with pretended():
        found = move_module(LOSSES[name]())(*moved(tensors), **more)
        assert found.device == DEVICE and float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize('adapter', ADAPTERS, ids=[str(i) for i in range(len(ADAPTERS))])
def test_adapters(adapter):
    with pretended():
        found = move_module(adapter)(OnGPU(torch.randn(2, CHANNELS, 7, 5)), target_size=(8, 6))
    assert found.device == DEVICE
    rows = move_module(LinearAdapter(CHANNELS, 3))
    with pretended():
        assert rows(OnGPU(torch.randn(4, CHANNELS)), target_size=()).device == DEVICE


def test_the_scale_of_another_map_and_the_global_context():
    student, teacher = torch.randn(2, CHANNELS, 5, 4), 3 * torch.randn(2, CHANNELS, 3, 6) + 1
    expected, context = align_scale(student, teacher), move_module(GlobalContext(CHANNELS))
    with pretended():
        found = align_scale(OnGPU(student), OnGPU(teacher))
        assert found.device == context(OnGPU(student)).device == DEVICE
        with pytest.raises(RuntimeError, match='a tensor of the CPU'):
            align_scale(OnGPU(student), teacher)
    torch.testing.assert_close(found.value, expected)


def test_the_mixture_fit_and_the_criteria():
    torch.manual_seed(0)
    costs, lengths = torch.rand(40, 12), torch.randint(0, 13, (40,))
    costs[::3] *= 50
    expected = fit_two_gaussians(costs, lengths)
    decisions = [criteria.StdMeanCriterion(), criteria.FisherCriterion(), criteria.MeanCostCriterion(),
                 criteria.FixedCriterion('first')]
    cells, pair = torch.arange(12) % 5, torch.rand(2, 12)
    with pretended():
        found = fit_two_gaussians(OnGPU(costs), OnGPU(lengths))
        assert all(part.device == DEVICE for part in found)
        with pytest.raises(RuntimeError, match='a tensor of the CPU'):
            fit_two_gaussians(OnGPU(costs), lengths)
        taken = [one(OnGPU(pair), OnGPU(cells), 5) for one in (*decisions, criteria.RandomCriterion())]
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours.value, theirs)
    assert all(one.device == DEVICE for one in taken)
    assert [one.value.tolist() for one in taken[:-1]] == [one(pair, cells, 5).tolist() for one in decisions]


@pytest.mark.parametrize('method', METHODS)
def test_a_step_of_every_method(method, teachers):
    """The student's losses and the method's, through backbone, heads, assignment, sampling and NMS."""
    model = build(METHODS[method](teachers), 1)
    model._watch.see = lambda *arguments: None  # it asks who trains, and nothing does here
    batch = make_batch(sizes=((64, 96),) * 2, objects=(2, 0))
    for source in model.sources.values():
        if not source.trains and hasattr(source, 'model'):
            move_module(source.model)
    move_module(model)
    with pretended():
        batch = dict(inputs=[OnGPU(one) for one in batch['inputs']],
                     data_samples=[on_gpu(sample) for sample in batch['data_samples']])
        model.data_preprocessor._device = DEVICE
        data = model.data_preprocessor(batch, True)
        losses = model.loss(data['inputs'], data['data_samples'])
    for name, value in losses.items():
        assert all(one.device == DEVICE for one in (value if isinstance(value, list) else [value])), name


def on_gpu(sample):
    for part in (sample.gt_instances, sample.ignored_instances):
        for name, value in list(part.items()):
            part.pop(name)
            part.set_field(OnGPU(value), name)
    return sample
