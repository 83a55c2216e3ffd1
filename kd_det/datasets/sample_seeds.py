"""Augmentation that depends on the seed, the epoch and the sample, and on nothing else: not on which worker draws it.
"""
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, IterableDataset

from ..errors import DataError
from ..random_state import cpu_random_state, seed_cpu, seed_of, set_cpu_random_state
from .exact_views import transforms_of
from .image_files import image_damage

KEEPS_STATE = {'CachedMosaic', 'CachedMixUp', 'Albu'}
"""Transforms that remember earlier samples, or draw from a random state of their own."""


class SampleIndex(int):
    """An index into a data set that carries the seed of this one visit."""

    seed: int

    def __new__(cls, index: int, seed: int) -> 'SampleIndex':
        found = super().__new__(cls, index)
        found.seed = seed
        return found

    def __reduce__(self) -> tuple:
        return SampleIndex, (int(self), self.seed)


class SeededBatches:
    """A batch sampler whose indices know their seeds; everything else is the wrapped one's.

    The seed of a sample is a hash of (run's seed, epoch, lap, repetition, index). The lap counts how often the data set
    has been gone through in this epoch, over all ranks: 0, except in samplers without an end and for the samples that
    fill up the last batch. The repetition counts visits of the same index within a lap (class-aware samplers).

    Args:
        batches: the batch sampler.
        size (int): of the data set.
        seed (int): the run's.
    """

    def __init__(self, batches: Any, size: int, seed: int) -> None:
        self.batches, self.size, self.seed = batches, size, seed
        self.rank, self.world_size = get_dist_info()
        self.epoch = self.yielded = 0
        self.skip = 0
        """Batches that the next iteration leaves out: a run that resumes in the middle of an epoch has seen them."""
        self.void = 0
        """Batches that are still to be yielded empty, because a loop throws them away unseen."""

    def __getattr__(self, name: str) -> Any:
        if name == 'batches':  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        epoch, skip = self.epoch, self.skip
        self.epoch, self.skip = epoch + 1, 0  # a loop that counts iterations tells nobody when its data begin again
        lap, count, visits = 0, 0, Counter()
        for number, batch in enumerate(self.batches):
            indices = []
            for index in batch:
                now = (count * self.world_size + self.rank) // max(self.size, 1)
                count += 1
                if now != lap:
                    lap, visits = now, Counter()
                indices.append(SampleIndex(index, seed_of(self.seed, epoch, lap, visits[index], index)))
                visits[index] += 1
            if number < skip:
                continue
            if self.void:
                self.void -= 1
                indices = []
            self.yielded += 1
            yield indices


class SeededItems:
    """Fetches a batch, each sample from its own random state; the process's random state is as before afterwards.

    ``DataLoader`` asks a data set for a whole batch by its ``__getitems__`` if it has one. This is put there, so that
    the data set stays the object that hooks know and change.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: list[int]) -> list:
        before = cpu_random_state()
        try:
            return [self._sample(index) for index in indices]
        finally:
            set_cpu_random_state(before)

    def _sample(self, index: int) -> Any:
        if isinstance(index, SampleIndex):
            seed_cpu(index.seed)
        try:
            return self.dataset[int(index)]
        except Exception as error:
            name = image_of(self.dataset, int(index))
            found = image_damage(name) if name else None
            if found is None:  # it is not the image's fault
                raise
            raise DataError(f'image {name}: {found}; mend it, or take it out of the annotation file') from error


def image_of(dataset: Any, index: int) -> str | None:
    """The file of a sample, where it has one of its own."""
    try:
        return dataset.get_data_info(index).get('img_path')
    except Exception:  # data sets are anybody's; the error at hand is the one to report
        return None


class CollateUnlessEmpty:
    """The loader's own collate function; nothing for a batch that is thrown away unseen."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, samples: list) -> Any:
        return self.collate(samples) if samples else None


def seed_samples(loader: DataLoader, seed: int) -> SeededBatches | None:
    """Make a loader's samples depend on (seed, epoch, sample) alone; before its first iteration.

    Returns:
        SeededBatches | None: to be told the epoch; None for a loader that has no index per sample.
    """
    own_generator(loader, seed)
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        return None
    batches = SeededBatches(loader.batch_sampler, len(loader.dataset), seed)
    loader.dataset.__getitems__ = SeededItems(loader.dataset)
    loader.collate_fn = CollateUnlessEmpty(loader.collate_fn)
    object.__setattr__(loader, 'batch_sampler', batches)  # DataLoader refuses a change by assignment
    return batches


def own_generator(loader: DataLoader, seed: int) -> None:
    """Workers' base seeds are drawn from a generator of the loader's own, not from the training's random state."""
    if loader.generator is None:
        loader.generator = torch.Generator().manual_seed(seed_of(seed, 'loader'))


def state_keepers(dataset: Any) -> list[str]:
    """Names of transforms in a data set, and in those that it wraps, for which the promise does not hold."""
    return sorted({type(transform).__name__ for transform in transforms_of(dataset)} & KEEPS_STATE)
