"""A run is a function of its config and seed: any number of workers, interrupted or not, gives the same weights."""
import random

import numpy as np
import pytest
import torch
from conftest import faster_rcnn_cfg, run_tool
from torch.utils.data import DataLoader
from torch.utils.data.sampler import BatchSampler, SequentialSampler

from kd_det.compat.checkpoint import load
from kd_det.datasets.sample_seeds import seed_samples

AUGMENTED = """
train_pipeline.insert(3, dict(type='PhotoMetricDistortion'))
train_dataloader.update(batch_size=2)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=True))
train_cfg.update(val_interval=1)
"""
INNER = AUGMENTED + "default_hooks['checkpoint'].update(by_epoch=False, interval=1)\n"


class Draws:
    """A data set that returns what each random state gives."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        assert type(index) is int
        return index, random.random(), np.random.rand(), float(torch.rand(()))


def samples(workers: int, persistent: bool, seed: int = 3, epochs: int = 2) -> list:
    dataset = Draws()
    loader = DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 2, False), num_workers=workers,
                        persistent_workers=persistent, collate_fn=list)
    seed_samples(loader, seed)
    return [[sample for batch in loader for sample in batch] for _ in range(epochs)]


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    here = samples(0, False)
    assert random.getstate() == before[0] and (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2]), 'the training draws from this state'
    assert samples(2, False) == samples(3, True) == here
    drawn = [value for epoch in here for sample in epoch for value in sample[1:]]
    assert len(set(drawn)) == len(drawn), 'no sample repeats, in this epoch or the next'
    assert samples(0, False, seed=4)[0][0][1:] != here[0][0][1:]


@pytest.mark.parametrize('workers, persistent', [(0, False), (2, False), (3, True)])
def test_in_the_middle_of_an_epoch_the_rest_of_it_is_what_it_would_have_been(workers, persistent):
    dataset, whole = Draws(), samples(0, False, epochs=3)
    loader = DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 2, False), num_workers=workers,
                        persistent_workers=persistent, collate_fn=list)
    batches = seed_samples(loader, 3)
    batches.epoch, batches.skip = 1, 2
    rest, after = ([sample for batch in loader for sample in batch] for _ in range(2))
    assert rest == whole[1][4:] and after == whole[2]


def train(config, work, *options, resume=None):
    run_tool('train', str(config), '--work-dir', str(work), *(['--resume', str(resume)] if resume else []),
             *(['--cfg-options', *options] if options else []))


def assert_same(one, two):
    one, two = load(str(one)), load(str(two))
    different = [key for key, value in one['state_dict'].items() if not torch.equal(value, two['state_dict'][key])]
    assert not different, different[:3]
    assert one['meta']['iter'] == two['meta']['iter']
    for key, state in one['optimizer']['state'].items():
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(two['optimizer']['state'][key][name]))
                   for name, value in state.items())


@pytest.mark.slow  # quick: test_a_sample_depends_on_seed_epoch_and_index_alone
def test_workers_do_not_change_the_weights(run_config, tmp_path):
    config = run_config(faster_rcnn_cfg(), extra=AUGMENTED)
    train(config, tmp_path / 'here')
    for name, options in (('two', ['train_dataloader.num_workers=2']),
                          ('kept', ['train_dataloader.num_workers=3', 'train_dataloader.persistent_workers=True'])):
        train(config, tmp_path / name, *options)
        assert_same(tmp_path / 'here' / 'epoch_2.pth', tmp_path / name / 'epoch_2.pth')


def test_resumed_at_any_iteration_the_run_ends_equal(run_config, tmp_path):
    """Inside an epoch, with half an accumulation, and at its end; 4 iterations an epoch."""
    config = run_config(faster_rcnn_cfg(), extra=INNER + "optim_wrapper.update(accumulative_counts=3)\n")
    train(config, tmp_path / 'whole')
    for iteration in (2, 4, 7):
        train(config, tmp_path / f'from{iteration}', resume=tmp_path / 'whole' / f'iter_{iteration}.pth')
        assert not (tmp_path / f'from{iteration}' / f'iter_{iteration}.pth').exists(), 'a step was repeated'
        assert_same(tmp_path / 'whole' / 'iter_8.pth', tmp_path / f'from{iteration}' / 'iter_8.pth')


@pytest.mark.parametrize('sampler', ['InfiniteSampler'])
def test_loops_that_count_iterations(run_config, tmp_path, sampler):
    config = run_config(faster_rcnn_cfg(), extra=INNER + f"""
train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=3)
train_dataloader.update(sampler=dict(type={sampler!r}))
""")
    train(config, tmp_path / 'whole')
    train(config, tmp_path / 'from4', 'train_dataloader.num_workers=2', resume=tmp_path / 'whole' / 'iter_4.pth')
    assert_same(tmp_path / 'whole' / 'iter_6.pth', tmp_path / 'from4' / 'iter_6.pth')
