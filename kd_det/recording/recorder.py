"""What a teacher says of a training set, recorded before training, by one machine or several."""
import os.path as osp
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Subset

from ..datasets.exact_views import directions, mirror_always
from ..datasets.sample_seeds import seed_samples
from ..engine.record_hook import size_of
from ..engine.recordable import check_recordable, recorded
from ..engine.unlabelled_hook import KEY as UNLABELLED
from ..errors import ConfigError
from ..sources import RecordedTeacher
from ..sources.shards import in_words

KINDS = (None, 'FrozenTeacher', 'RecordedTeacher')


class Shares:
    """Which part of the work this process does: ``number`` of ``count``, from 0."""

    def __init__(self, number: int = 0, count: int = 1) -> None:
        if not 0 <= number < count:
            raise ConfigError(f'--shard: found {number + 1}/{count}; 1/{count} to {count}/{count} are expected')
        self.number, self.count = number, count

    @classmethod
    def of(cls, text: str | None) -> 'Shares':
        """From ``'2/8'``, the second of eight; None: all of it."""
        if text is None:
            return cls()
        number, _, count = text.partition('/')
        if not (number.isdigit() and count.isdigit()):
            raise ConfigError(f'--shard: found {text!r}; i/n is expected, such as 2/8 for the second of eight parts')
        return cls(int(number) - 1, int(count))


def with_records(cfg: Config, out: str | None, max_disk: str | None) -> dict[str, str]:
    """Give every frozen teacher of a config a record; returns their folders by the teacher's config key.

    Args:
        out: the folder; of several teachers, each has a folder of its name in it. None: where the config says.

    Raises:
        ConfigError: no teacher, or no folder.
    """
    model = cfg.model
    teachers = {'teacher': model.get('teacher')}
    teachers.update({f'sources.{name}': one for name, one in (model.get('sources') or {}).items()})
    teachers = {key: one for key, one in teachers.items() if isinstance(one, dict) and one.get('type') in KINDS}
    if not teachers:
        raise ConfigError(f'record: model.type {model.get("type")!r} has no frozen teacher; give a distil config')
    folders = {}
    for key, teacher in teachers.items():
        found = teacher.get('record')
        place = dict(folder=found) if isinstance(found, str) else dict(found or {})
        if out is not None:
            place['folder'] = out if len(teachers) == 1 else osp.join(out, key.rpartition('.')[2])
        if 'folder' not in place:
            raise ConfigError(f'--out: missing, and {key}.record names no folder; say where the answers go')
        place['missing'] = 'record'
        if max_disk is not None:
            place['max_disk'] = max_disk
        teacher['record'] = place
        folders[key] = place['folder']
    return folders


def record(cfg: Config, epochs: int | None = None, shares: Shares | None = None, device: str = 'cpu',
           say: Callable[[str], None] = print,
           progress: Callable[[int, int], None] | None = None) -> dict[str, RecordedTeacher]:
    """Ask the teachers of a distil config about every view of its training set, and write down what is not yet there;
    for boxes, about every image, those without labels among them.

    Args:
        cfg: whose teachers have a record (:func:`with_records`).
        epochs: None: each image in each way in which it may be mirrored, on the one canvas that all images end on. N:
            the batches of the first N epochs that a run of this config and seed sees, whatever their canvases.
        shares: the part of the work that this process does.
        device: where the teachers run.
        say: is told the estimate, before anything is written.
        progress: is called with (views done, views in all).

    Returns:
        The recorded teachers by name.

    Raises:
        ConfigError: terms or pipelines of which nothing can be recorded; images that end on different canvases; an
            estimate beyond ``max_disk``; the disk was full.
    """
    shares = shares or Shares()
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')), torch.no_grad():
        model = MODELS.build(cfg.model)
        sources = {name: source for name, source in model.sources.items() if source in recorded(model)}
        if not sources:
            raise ConfigError('record: no term that is on asks a teacher anything')
        model.to(device)
        loader = _loader(cfg, epochs)
        for source in sources.values():
            check_recordable(source, loader.dataset, model.data_preprocessor)
            source.load()
        of_views = [source for source in sources.values() if source.of_views]
        of_images = [source for source in sources.values() if source.boxes is not None]
        if of_views:
            batches, total = _epochs(loader, epochs, shares) if epochs else _views(loader, model, shares)
            batches = (model.data_preprocessor(batch, True) for batch in batches)
            _write(of_views, batches, total, _ask_about_views, say, progress)
        if of_images:
            images = _images(cfg, model, loader.dataset, shares)
            batches = ([image] for image in images)
            _write(of_images, batches, len(images), _ask_about_images, say, progress)
    return sources


def _write(sources: list[RecordedTeacher], batches: Iterator[Any], total: int,
           ask: Callable[[RecordedTeacher, Any, bool], int], say: Callable[[str], None],
           progress: Callable[[int, int], None] | None) -> None:
    """Ask about every batch and write the answers down.

    Args:
        ask: of a source, a batch, and whether only its first image is meant; returns how many it asked about.
    """
    done = 0
    for batch in batches:
        for source in sources:
            if not done:  # the first image tells the size of all
                ask(source, batch, True)
                _estimate(source, total, say)
                source.counts['read'] -= 1  # it is asked about again
            count = ask(source, batch, False)
        done += count
        if progress is not None:
            progress(done, total)
        if any(source.shards.full for source in sources):
            break
    for source in sources:
        source.shards.flush()
        if source.shards.full:
            raise ConfigError(f'{source.key}.record: {source.shards.full}; {done} of {total} views were reached')


def _ask_about_views(source: RecordedTeacher, data: dict, first: bool) -> int:
    inputs, samples = (data[name][:1 if first else None] for name in ('inputs', 'data_samples'))
    source.answers(inputs, samples)
    return len(samples)


def _ask_about_images(source: RecordedTeacher, images: list[dict], first: bool) -> int:
    for image in images:
        source.boxes.entry(image)
    return len(images)


def _images(cfg: Config, model: nn.Module, dataset: Any, shares: Shares) -> list[dict]:
    """This process's images: path and id of each, once, those without labels after the others."""
    datasets = [dataset]
    if model.unlabelled is not None and model.unlabelled.acting(model.terms) and UNLABELLED in cfg:
        datasets.append(DATASETS.build(cfg[UNLABELLED].dataset))
    found: dict[tuple, dict] = {}
    for one in datasets:
        for i in range(len(one)):
            info = one.get_data_info(i)
            found.setdefault((info['img_path'], info.get('img_id')), dict(img_path=info['img_path'],
                                                                          img_id=info.get('img_id')))
    return list(found.values())[shares.number::shares.count]


def _estimate(source: RecordedTeacher, total: int, say: Callable[[str], None]) -> None:
    say(size_of(source, total))
    need = total * source.shards.bytes_per_view
    if need > source.record.max_bytes:
        source.shards.discard()
        raise ConfigError(f'--max-disk: {source.key} needs about {in_words(need)} for {total} views, '
                          f'{in_words(source.record.max_bytes)} are allowed; nothing was written. Allow more, or let '
                          'fewer or coarser layers teach')


def _loader(cfg: Config, epochs: int | None) -> DataLoader:
    """The run's own train loader."""
    randomness = cfg.get('randomness') or {}
    if epochs and randomness.get('seed') is None:
        raise ConfigError('randomness.seed: None, and --epochs records what a run of one seed sees; set it here and in '
                          'the run')
    seed = randomness.get('seed') or 0
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed,
                                     diff_rank_seed=randomness.get('diff_rank_seed', False))
    loader.batches = seed_samples(loader, seed) if epochs else None
    return loader


def _epochs(loader: DataLoader, epochs: int, shares: Shares) -> tuple[Iterator[Any], int]:
    """This process's batches of the run's first epochs, as the run sees them."""
    def batches() -> Iterator[Any]:
        for epoch in range(epochs):
            for sampler in (loader.sampler, getattr(loader.batches, 'sampler', None)):
                if hasattr(sampler, 'set_epoch'):
                    sampler.set_epoch(epoch)
            loader.batches.epoch = epoch
            yield from (batch for i, batch in enumerate(loader) if i % shares.count == shares.number)
    mine = len(range(shares.number, len(loader), shares.count))
    return batches(), epochs * mine * loader.batch_sampler.batch_size


def _views(loader: DataLoader, model: nn.Module, shares: Shares) -> tuple[Iterator[Any], int]:
    """This process's images in batches of the run's size, one way of mirroring after the other."""
    dataset = loader.dataset
    _check_canvas(dataset, model.data_preprocessor)
    mine = list(range(shares.number, len(dataset), shares.count))
    ways = directions(dataset)

    def one_way(way: str | None) -> Iterator[Any]:
        mirror_always(dataset, way)  # before workers copy the data set
        yield from DataLoader(Subset(dataset, mine), loader.batch_sampler.batch_size, num_workers=loader.num_workers,
                              collate_fn=pseudo_collate)
    return chain.from_iterable(one_way(way) for way in ways), len(mine) * len(ways)


def _check_canvas(dataset: Any, preprocessor: nn.Module) -> None:
    """All images end on one canvas, so that a batch's padding does not depend on what else is in it.

    One image of each size on disk is looked at.
    """
    examples: dict[tuple, int] = {}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        examples.setdefault((info.get('height'), info.get('width')), i)
    canvases: dict[tuple[int, int], int] = {}
    for i in examples.values():
        shape = preprocessor(pseudo_collate([dataset[i]]), True)['inputs'].shape[-2:]
        canvases.setdefault(tuple(shape), i)
    if len(canvases) > 1:
        listed = ', '.join(f'{height}x{width}' for height, width in sorted(canvases)[:6])
        listed += ' ...' if len(canvases) > 6 else ''
        most = tuple(max(sides) for sides in zip(*canvases))
        raise ConfigError(f'train_dataloader: its images end on {len(canvases)} canvases ({listed}), and a batch is '
                          'padded to the largest in it, which reaches the teacher\'s features. Pad all alike '
                          f'(data_preprocessor.batch_augments=[dict(type=\'BatchFixedSizePad\', size={most})], of '
                          'masks pad_mask=True too), or record the very batches that a run of this seed sees: '
                          '--epochs N')
