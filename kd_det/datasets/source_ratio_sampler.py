"""Batches with a fixed share of each of several data sets, epoch by epoch."""
import math
from collections.abc import Iterator, Sequence

import torch
from mmengine.dataset import ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ..errors import ConfigError


class SourceRatioSampler(Sampler):
    """For a ``ConcatDataset``: each batch holds so many images of each of its data sets.

    MMDetection's ``MultiSourceSampler`` never ends, which an epoch-based loop cannot use. This one's epoch is as long
    as the concatenated data sets; a data set that is used up begins anew, in another order. The order depends on seed,
    epoch and place alone, not on the number of ranks' history: a resumed run draws what an uninterrupted one draws.

    Args:
        dataset: a ``ConcatDataset``.
        batch_size (int): that of the data loader, per rank.
        source_ratio (list[int]): images of each data set in a batch; adds up to ``batch_size``.
        seed (int | None): None: one that all ranks agree on.

    Raises:
        ConfigError: no ``ConcatDataset``, numbers that do not fit.
    """

    def __init__(self, dataset: ConcatDataset, batch_size: int, source_ratio: Sequence[int],
                 seed: int | None = None) -> None:
        if not hasattr(dataset, 'cumulative_sizes'):
            raise ConfigError(f'train_dataloader.sampler: SourceRatioSampler needs a ConcatDataset, found '
                              f'{type(dataset).__name__}')
        self.sizes = [len(one) for one in dataset.datasets]
        if len(source_ratio) != len(self.sizes) or any(isinstance(n, bool) or not isinstance(n, int) or n < 0
                                                       for n in source_ratio) or sum(source_ratio) != batch_size:
            raise ConfigError(f'train_dataloader.sampler.source_ratio: found {list(source_ratio)}; {len(self.sizes)} '
                              f'whole numbers that add up to batch_size={batch_size} are expected')
        empty = [i for i, (size, n) in enumerate(zip(self.sizes, source_ratio)) if n and not size]
        if empty:
            raise ConfigError(f'train_dataloader.dataset.datasets[{empty[0]}]: it has no image')
        self.starts = [0, *dataset.cumulative_sizes[:-1]]
        self.ratio, self.batch_size = list(source_ratio), batch_size
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.batches = math.ceil(sum(self.sizes) / (batch_size * self.world_size))

    def __iter__(self) -> Iterator[int]:
        drawn = [self._order(source) for source in range(len(self.sizes))]
        for batch in range(self.batches):
            for source, count in enumerate(self.ratio):
                first = (batch * self.world_size + self.rank) * count
                for place in range(first, first + count):
                    yield self.starts[source] + drawn[source][place]

    def _order(self, source: int) -> list[int]:
        """Places in one data set for the whole epoch and all ranks."""
        generator = torch.Generator().manual_seed(self.seed + 1000003 * self.epoch + source)
        wanted, order = self.batches * self.world_size * self.ratio[source], []
        while len(order) < wanted:
            order += torch.randperm(self.sizes[source], generator=generator).tolist()
        return order

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop."""
        self.epoch = epoch
