"""Adapters leave the global random state alone, and do not depend on it."""
import random

import numpy as np
import pytest
import torch

from kd_det.adapters import ConvAdapter, GlobalContext, IdentityAdapter, LinearAdapter

BUILDERS = {
    'conv': lambda **kw: ConvAdapter(3, 5, **kw),
    'conv, two layers': lambda **kw: ConvAdapter(3, 5, 3, 2, norm='BN', **kw),
    'conv, identity': lambda **kw: ConvAdapter(3, 3, init='identity', **kw),
    'linear': lambda **kw: LinearAdapter(3, 5, **kw),
    'linear, two layers': lambda **kw: LinearAdapter(3, 5, 2, **kw),
    'global context': lambda **kw: GlobalContext(6, **kw),
    'identity': lambda: IdentityAdapter(3, 3),
}
DRAWING = ['conv', 'conv, two layers', 'linear', 'linear, two layers', 'global context']


@pytest.mark.parametrize('name', BUILDERS)
def test_building_draws_nothing(name):
    torch.manual_seed(1)
    torch.rand(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    BUILDERS[name]()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


@pytest.mark.parametrize('name', BUILDERS)
def test_building_seeds_nothing(name, monkeypatch):
    # torch.manual_seed seeds the GPUs too, at once or when they are first used, and a fork of
    # the CPU generator would not undo that
    def refuse(*_):
        raise AssertionError('the global generators were seeded')

    for module, function in ((torch, 'manual_seed'), (torch.cuda, 'manual_seed_all')):
        monkeypatch.setattr(module, function, refuse)
    BUILDERS[name]()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('name', BUILDERS)
def test_building_leaves_the_gpu_generator_alone(name):
    before = torch.cuda.get_rng_state()
    with torch.device('cuda'):
        adapter = BUILDERS[name]()
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert all(p.device.type == 'cpu' for p in adapter.parameters())


@pytest.mark.parametrize('name', DRAWING)
def test_weights_depend_on_the_seed_alone(name):
    def weights(global_seed, **kwargs):
        torch.manual_seed(global_seed)
        return torch.cat([p.detach().flatten() for p in BUILDERS[name](**kwargs).parameters()])

    assert torch.equal(weights(1), weights(2))
    assert torch.equal(weights(1), weights(1, seed=0))
    assert not torch.equal(weights(1), weights(1, seed=7))
