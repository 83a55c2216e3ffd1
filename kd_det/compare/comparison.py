"""Collect runs, measure them side by side, and say under which conditions."""
import os.path as osp
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..errors import CompareError
from ..version import __version__
from ..weights import read_state_dict
from . import cost, images
from .accuracy import dataset_of
from .error_types import find_errors
from .evaluation import evaluate as run_evaluation
from .gallery import Gallery, make_gallery
from .logs import Record
from .rows import Member, Row, fold
from .runs import Run, find_run, recipe, seed_of
from .sample import check_classes, detect, sample_of
from .student import build_detector, deployed_model


@dataclass
class Comparison:
    """Rows in the order asked for, remarks for the reader, what it ran on, and the gallery where one was asked for."""
    rows: list[Row]
    notes: list[str]
    environment: dict
    gallery: Gallery | None = None


def compare(specs: Sequence[str], names: Sequence[str] | None = None, fold_seeds: bool = True,
            data_root: str | None = None, split: str | None = None, evaluate: str | None = None,
            timed: bool = True, repeat: int = 50, warmup: int = 5, number: int = 10,
            device: str | None = None, gallery: int = 0, looked_at: int = 200,
            progress: Callable[[str], None] = lambda message: None) -> Comparison:
    """Compare detectors.

    Args:
        specs (Sequence[str]): work directories or ``CONFIG:CHECKPOINT``.
        names (Sequence[str] | None): one for each.
        fold_seeds (bool): one row for runs that differ in the seed alone.
        data_root (str | None): in place of the configs' own.
        split (str | None): ``'val'`` or ``'test'``: only that evaluation counts.
        evaluate (str | None): ``'missing'`` or ``'all'``: run evaluations.
        timed (bool): measure latency.
        repeat, warmup (int): rounds with and without the clock.
        number (int): images to measure on.
        device (str | None): None takes CUDA where there is one.
        gallery (int): images of a gallery; 0: none.
        looked_at (int): images of the test set that it is chosen from, and that types of errors are counted in.
        progress (Callable): told what is being done.

    Raises:
        CompareError: the message names the run; and what reading a config, a data set and a
            checkpoint raise: ConfigError, CheckpointMismatch, UnsafeCheckpointError.
    """
    where = device_named(device)
    members, notes, models = [], [], {}
    for i, spec in enumerate(specs):
        run = find_run(spec, names[i] if names else None, data_root)
        state_dict, meta = read_state_dict(run.checkpoint)
        # every checkpoint is loaded, so that none is shown that does not fit its config
        model = build_detector(run.cfg, state_dict, run.checkpoint)
        record = None if evaluate == 'all' else _recorded(run, split)
        if record is None and evaluate is not None:
            progress(f'evaluating {run.name} ...')
            loop = split or 'test'
            found = run_evaluation(run.cfg, deployed_model(run.cfg), state_dict, loop)
            record = Record(loop, found.accuracy, dataset_of(run.cfg, loop))
        if record is None and run.log is not None:
            raise CompareError(
                f'{spec!r} has recorded no {split + " " if split else ""}AP; evaluate it with '
                '--eval, or give CONFIG:CHECKPOINT to see its cost alone')
        notes += _outdated(run, record, meta)
        member = Member(run, seed_of(run.cfg, meta), recipe(run.cfg, meta),
                        record and record.accuracy, record and record.dataset,
                        _megabytes(run.checkpoint),
                        sum(t.numel() * t.element_size() for t in state_dict.values()) / 1e6)
        members.append(member)
        models[id(member)] = model
    rows, remarks = fold(members, keep_apart=not fold_seeds)
    notes = _accuracy_notes(rows) + notes + remarks
    leaders = [row.members[0] for row in rows]
    models = [models[id(member)].to(where) for member in leaders]
    notes += _measure(rows, models, where, timed, repeat, warmup, number, progress)
    notes.append('file: the checkpoint on disk, with the optimizer state where it is stored')
    seen, remarks = _gallery(rows, models, gallery, looked_at, progress) if gallery else (None, [])
    return Comparison(rows, notes + remarks, _environment(where), seen)


def _gallery(rows: Sequence[Row], models: Sequence[torch.nn.Module], number: int, looked_at: int,
             progress: Callable[[str], None]) -> tuple[Gallery | None, list[str]]:
    """What the first seed of each row finds in images of the test set; None, and why, where the set is not there."""
    cfgs = [row.members[0].run.cfg for row in rows]
    sample = sample_of(cfgs, max(number, looked_at))
    if sample is None:
        return None, ['no gallery and no types of errors: the test set was not found (give --data-root)']
    found, errors = [], []
    for row, cfg, model in zip(rows, cfgs, models):
        check_classes(row.name, cfg, sample.classes)
        progress(f'looking at {len(sample.photos)} images with {row.name} ...')
        found.append(detect(model, cfg, sample.photos, _Ticker(lambda text, name=row.name: progress(f'{name}: {text}'),
                                                               total=len(sample.photos))))
        errors.append(find_errors(sample.truth, found[-1]))
    return make_gallery(sample, [row.name for row in rows], found, errors, number), []


def device_named(name: str | None) -> torch.device:
    """The device that is asked for; None: CUDA where there is one.

    Raises:
        CompareError: there is none of that name.
    """
    if name is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CompareError(f'--device {name!r}: {error}') from None
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise CompareError(f'--device {name!r}: PyTorch sees no CUDA device here')
    return device


def _recorded(run: Run, split: str | None) -> Record | None:
    """The last evaluation of the run, leaving out tests of another checkpoint."""
    records = [] if run.log is None else [
        r for r in run.log.records if split in (None, r.split)
        and (r.checkpoint is None or osp.basename(r.checkpoint) == osp.basename(run.checkpoint))]
    return records[-1] if records else None


def _outdated(run: Run, record: Record | None, meta: dict) -> list[str]:
    trained = meta.get('epoch')
    if record is None or record.epoch in (None, trained) or trained is None:
        return []
    return [f'{run.name}: the recorded AP is of epoch {record.epoch}, the checkpoint of epoch '
            f'{trained}; --eval all evaluates the checkpoint']


def _accuracy_notes(rows: Sequence[Row]) -> list[str]:
    by_set: dict[str, list[str]] = {}
    for row in rows:
        for member in row.members:
            if member.accuracy is not None:
                names = by_set.setdefault(member.dataset or 'a data set that was not recorded', [])
                if row.name not in names:
                    names.append(row.name)
    notes = []
    if len(by_set) == 1:
        notes.append(f'AP (%) on {next(iter(by_set))}')
    elif by_set:
        notes.append('WARNING: AP (%) is of different data sets and not comparable: '
                     + '; '.join(f'{", ".join(names)} on {path}' for path, names in by_set.items())
                     + '. --split val|test and --eval all give all of them on one')
    without = [row.name for row in rows if row.figure('AP') is None
               and any(m.accuracy is None for m in row.members)]
    if without:
        notes.append(f'not evaluated: {", ".join(without)}; add --eval')
    if any(len(row.members) > 1 for row in rows):
        notes.append('± is the sample standard deviation over n seeds; the cost is that of the '
                     'first seed')
    return notes


def _megabytes(path: str) -> float | None:
    return osp.getsize(path) / 1e6 if osp.isfile(path) else None


def _measure(rows: Sequence[Row], models: Sequence[torch.nn.Module], device: torch.device,
             timed: bool, repeat: int, warmup: int, number: int,
             progress: Callable[[str], None]) -> list[str]:
    cfgs = [row.members[0].run.cfg for row in rows]
    paths = images.test_images(cfgs, number)
    batches = [images.prepared(cfg, paths, number) for cfg in cfgs]
    for row, model, mine in zip(rows, models, batches):
        progress(f'counting operations of {row.name} ...')
        row.parameters = cost.parameters(model)
        row.sizes = cost.input_sizes(model, mine)
        row.multiply_adds = cost.multiply_adds(model, mine)
    kind = 'test images' if paths else ('images of random noise, because no test set was found '
                                        '(give --data-root); they yield other proposals and boxes '
                                        'than real ones')
    shown = ', '.join(f'{row.name} {_sizes(row.sizes)}' for row in rows)
    notes = [f'{cost.CONVENTION}; mean over {len(batches[0])} {kind}; input with padding: {shown}']
    if timed:
        results = cost.latencies(models, batches, repeat, warmup, device,
                                 progress=_Ticker(lambda text: progress(f'timing: round {text}')))
        for row, latency in zip(rows, results):
            row.latency = latency
        notes.append(
            f'times: batch 1, {repeat} rounds, detectors in turn in one process after {warmup} '
            f'rounds of warm-up, on {_device_name(device)}; the whole test step (normalise, pad, '
            'network, NMS, boxes scaled back), without reading and resizing the image; ratio of '
            'medians to the first row')
    return notes


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    first = 'x'.join(map(str, sizes[0]))
    return first if len(sizes) == 1 else f'{first} to {"x".join(map(str, sizes[-1]))}'


class _Ticker:
    """Says every few seconds how far something is and how long it will still take."""

    def __init__(self, progress: Callable[[str], None], every: float = 5., total: int | None = None) -> None:
        self.progress, self.every, self.total = progress, every, total
        self.start = self.last = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        now, total = time.monotonic(), total or self.total
        if now - self.last >= self.every:
            self.last = now
            left = (now - self.start) / done * (total - done)
            self.progress(f'{done} of {total}, {left:.0f} s left')


def _device_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{_processor()} with {torch.get_num_threads()} thread(s)'


def _processor() -> str:
    if osp.isfile('/proc/cpuinfo'):
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            for line in file:
                if line.startswith('model name'):
                    return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def _environment(device: torch.device) -> dict:
    import mmdet
    import mmengine
    return {'device': _device_name(device), 'torch': torch.__version__, 'mmdet': mmdet.__version__,
                'mmengine': mmengine.__version__, 'kd_det': __version__,
                'python': platform.python_version()}
