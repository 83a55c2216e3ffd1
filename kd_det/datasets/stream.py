"""The batches of a loader one after the other without end, from any of them on."""
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from ..errors import ConfigError
from .sample_seeds import seed_samples


class Stream:
    """Goes through a loader again and again. The n-th batch depends on the seed and on n alone: not on the worker that
    makes it, and not on where the stream began.

    Args:
        key (str): of the loader in the config, for messages.
        loader (DataLoader): not iterated yet. Its sampler ends, as ``DefaultSampler`` does.
        seed (int): the run's.
        begin (int): the first batch; those before it are left out unread.

    Raises:
        ConfigError: a data set without places, or a sampler without an end.
    """

    def __init__(self, key: str, loader: DataLoader, seed: int, begin: int = 0) -> None:
        self.loader, self._batches = loader, seed_samples(loader, seed)
        if self._batches is None:
            raise ConfigError(f'{key}.dataset: {type(loader.dataset).__name__} has no places that a sampler could name')
        if 'Infinite' in type(loader.sampler).__name__:
            raise ConfigError(f'{key}.sampler: {type(loader.sampler).__name__} has no end; DefaultSampler is expected, '
                              'and begins anew by itself')
        if not len(loader):
            raise ConfigError(f'{key}: {len(loader.dataset)} images make no batch of '
                              f'{loader.batch_size or "that size"}')
        self._epoch, self._skip = divmod(begin, len(loader))

    def __iter__(self) -> Iterator[Any]:
        while True:
            for sampler in (self.loader.sampler, getattr(self.loader.batch_sampler, 'sampler', None)):
                if hasattr(sampler, 'set_epoch'):
                    sampler.set_epoch(self._epoch)
            self._batches.epoch, self._batches.skip = self._epoch, self._skip
            self._epoch, self._skip = self._epoch + 1, 0
            yield from self.loader
