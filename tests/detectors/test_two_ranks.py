"""Two processes: the gradient is the mean of those of one process on each rank's images, for every method and term.

Normalisers that are averaged over ranks are part of a method; the single process is given the averages, which must be
the means of what the ranks put in.
"""
import contextlib
import sys

import pytest
import torch
from conftest import build, make_batch, total
from methods import METHODS
from mmdet import utils
from mmengine.model import MMDistributedDataParallel
from two_ranks import forked

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='forks, and a started CUDA cannot be forked')
ORIGINAL = [utils.reduce_mean]  # in a list, where it is not found and replaced
OBJECTS = [((3, 1), (0, 0)), ((0, 0), (2, 4))]  # of two steps: what the images of rank 0 and rank 1 hold


@contextlib.contextmanager
def means(replace):
    """Every ``reduce_mean`` that a module has imported is ``replace`` meanwhile."""
    found = [(module, name) for module in list(sys.modules.values()) for name, value in list(vars(module).items())
             if value is ORIGINAL[0]] if replace else []
    for module, name in found:
        setattr(module, name, replace)
    try:
        yield
    finally:
        for module, name in found:
            setattr(module, name, ORIGINAL[0])


def gradients(model, forward, rank, replace):
    """Of both steps, one after the other, by name; what is not trained in a step is missing there."""
    steps = []
    for number, objects in enumerate(OBJECTS):
        batch = make_batch(sizes=((96, 96), (64, 96)), objects=objects[rank], seed=10 * number + rank)
        torch.manual_seed(rank)
        model.zero_grad()
        with means(replace):
            losses = forward(**model.data_preprocessor(batch, True), mode='loss')
        total(losses).backward()
        steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return steps


def work(rank, folder, cfg):
    """A rank: its gradients after DDP has averaged them, and the averages that its losses divided by."""
    model, heard = build(cfg, 1), []

    def listening(value):
        mean = ORIGINAL[0](value)
        heard.append((torch.as_tensor(value).clone(), mean.clone()))
        return mean.clone()  # heads clamp it in place
    ddp = MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=False)
    found = gradients(model, ddp, rank, listening)
    torch.save(dict(gradients=found, heard=heard), f'{folder}/rank{rank}.pth')


def run(cfg, folder):
    forked(work, folder, cfg)
    return [torch.load(folder / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]


def test_terms_that_rest_leave_no_parameter_unused(teachers, tmp_path):
    """Adapters of a hint that begins later: DDP would wait for their gradients, and refuse the second step."""
    cfg = METHODS['pkd'](teachers)
    cfg.terms[0].start_epoch = 1
    for rank in run(cfg, tmp_path):
        for gradients_of_step in rank['gradients']:
            adapters = [value for name, value in gradients_of_step.items() if 'adapters' in name]
            assert adapters and not any(bool(value.any()) for value in adapters)


@pytest.mark.parametrize('method', METHODS)
def test_gradients_are_the_mean_of_those_of_single_processes(method, teachers, tmp_path):
    cfg = METHODS[method](teachers)
    ranks = run(cfg, tmp_path)
    alone = []
    for rank in (0, 1):
        waiting = list(ranks[rank]['heard'])

        def averaged(value, waiting=waiting):
            own, mean = waiting.pop(0)
            torch.testing.assert_close(torch.as_tensor(value).float(), own.float())
            return mean.clone()  # heads clamp it in place
        model = build(cfg, 1)
        alone.append(gradients(model, model, rank, averaged))
        assert not waiting
    for (own, mean), (other, same) in zip(*(rank['heard'] for rank in ranks), strict=True):
        torch.testing.assert_close(mean, same)
        torch.testing.assert_close(mean.float(), (own.float() + other.float()) / 2)
    for step in (0, 1):
        both = [rank['gradients'][step] for rank in ranks]
        names = {name for one in alone for name in one[step]}
        assert both[0].keys() == both[1].keys() >= names
        for name in sorted(both[0]):
            assert torch.equal(both[0][name], both[1][name]), f'{name}: the ranks hold different gradients'
            expected = sum(one[step].get(name, torch.zeros_like(both[0][name])) for one in alone) / 2
            scale = float(expected.abs().max())
            difference = float((both[0][name] - expected).abs().max())
            assert difference <= 1e-5 * max(scale, 1e-3), f'step {step}, {name}: {difference} of {scale}'
