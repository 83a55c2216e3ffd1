#!/usr/bin/env python
"""What a recorded teacher costs: a student's step with answers from disk against its plain step and its live teacher's.

``python tools/benchmarks/record.py DISTIL_CONFIG [DISTIL_CONFIG ...]``. For each config the plain student's step, the
distilled step with the live teacher, the distilled step with every answer recorded (an epoch after the first), and the
same with every answer in memory, ready to be used, are measured in turn on the same batches in one process::

    ratio = median step / median plain step
    what the record costs = recorded - in memory
    what the terms cost   = in memory - plain        their own work on the student's side, and a RoI head that runs

The second no record can save.

Answers are written to a folder beside ``--folder`` (a temporary one by default) and read
from it in each step, checksums and all; the files are in the page cache then, as they are on a machine with memory for
them, and ``--cold`` drops them from it before each step (Linux, needs no rights). Without ``--teacher-checkpoint`` the
teacher's weights are random, which changes no shape that it computes.
"""
import argparse
import copy
import os
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from kd_det.config import load_config
from kd_det.engine.recordable import check_recordable
from kd_det.plain import student_model
from kd_det.sources import RecordedTeacher
from kd_det.sources.shards import in_words
from kd_det.sources.views import view_of

from step_cost import give_weights  # isort: skip
from timing import (  # isort: skip
    CLOCKS, add_timing_arguments, interleaved, medians, print_timings, train_step, write_json)

PLAIN, LIVE, RECORDED, MEMORY = 'plain step', 'live teacher', 'recorded teacher', 'answers in memory'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='DISTIL_CONFIG', help='configs with one teacher')
    parser.add_argument('--teacher-checkpoint', metavar='FILE', help='trained weights of the '
                        'teacher; \'config\': what the config names (default: random ones)')
    parser.add_argument('--folder', help='where answers are written (default: a temporary folder)')
    parser.add_argument('--batch-size', type=int, help='instead of the config\'s')
    parser.add_argument('--cold', action='store_true', help='drop the shards from the page cache before each step')
    add_timing_arguments(parser)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def forget(folder: str) -> None:
    """Drop the files of a folder from the page cache."""
    for name in os.listdir(folder):
        handle = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


@torch.no_grad()
def answers(model: nn.Module, data: dict) -> None:
    """What the terms will ask about a preprocessed batch."""
    teacher = model.teacher
    teacher.answers(data['inputs'], data['data_samples'])
    if teacher.boxes is not None:
        teacher.boxes.of(data['data_samples'], data['inputs'].device)


def ask(model: nn.Module, batch: dict) -> None:
    answers(model, model.data_preprocessor(copy.deepcopy(batch), True))


def keep_in_memory(teacher: RecordedTeacher) -> None:
    """Every batch is looked up on disk once."""
    def kept(owner: Any, method: str, key: Callable[..., tuple]) -> None:
        known, read = {}, getattr(owner, method)

        def answer(*given: Any) -> Any:
            name = key(*given)
            if name not in known:
                known[name] = read(*given)
            return known[name]
        setattr(owner, method, answer)
    kept(teacher, 'answers', lambda inputs, samples: tuple(view_of(one, tuple(inputs.shape[-2:])) for one in samples))
    if teacher.boxes is not None:
        kept(teacher.boxes, 'of', lambda samples, device: tuple(view_of(one, (0, 0)) for one in samples))


def measure(cfg: Config, args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """All figures of one config."""
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    if args.batch_size:
        cfg.train_dataloader.batch_size = args.batch_size
    give_weights(cfg, args.teacher_checkpoint, folder)
    place = os.path.join(args.folder or folder, 'answers')
    networks = {}
    for name in (PLAIN, LIVE, RECORDED, MEMORY):
        if name == RECORDED:
            cfg.model.teacher.record = place
        torch.manual_seed(0)
        networks[name] = MODELS.build(student_model(cfg.model) if name == PLAIN else cfg.model).to(args.device).train()
    recorded, memory = networks[RECORDED], networks[MEMORY]
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    recorded.teacher.load()
    check_recordable(recorded.teacher, loader.dataset, recorded.data_preprocessor)
    batches = [batch for batch, _ in zip(loader, range(4))]
    begin = CLOCKS[args.clock]()
    for batch in batches:
        ask(recorded, batch)
    recorded.teacher.shards.flush()
    seconds = CLOCKS[args.clock]() - begin
    recorded.teacher.release()
    views = len(recorded.teacher.shards)
    memory.teacher.load()
    keep_in_memory(memory.teacher)
    for batch in batches:
        ask(memory, batch)
    work = {name: train_step(model, torch.optim.SGD(model.parameters(), lr=1e-4)) for name, model in networks.items()}
    if args.cold:
        step = work[RECORDED]
        work = {'dropping files': lambda batch: forget(place), **work}
        work[RECORDED] = step
    clock = CLOCKS[args.clock]
    found = interleaved(work, batches, args.repeat, args.warmup, args.device, clock)
    reads = []
    for i in range(args.repeat):
        data = recorded.data_preprocessor(copy.deepcopy(batches[i % len(batches)]), True)
        begin = clock()
        answers(recorded, data)
        reads.append(clock() - begin)
    print_timings({**found, 'reading alone': reads})
    median = medians(found)
    return dict(median_seconds=median, read_seconds=statistics.median(reads),
                bytes_per_view=recorded.teacher.shards.bytes_per_view,
                record_seconds_per_view=seconds / views, batch_size=len(batches[0]['inputs']),
                ratio=median[RECORDED] / median[PLAIN], ratio_live=median[LIVE] / median[PLAIN],
                ratio_memory=median[MEMORY] / median[PLAIN])


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    median = found['median_seconds']
    return (f'| {name} | {1e3 * median[PLAIN]:.0f} | {1e3 * median[LIVE]:.0f} ({found["ratio_live"]:.2f}) | '
            f'{1e3 * median[RECORDED]:.0f} ({found["ratio"]:.2f}) | {1e3 * median[MEMORY]:.0f} '
            f'({found["ratio_memory"]:.2f}) | {median[RECORDED] / median[MEMORY]:.3f} | '
            f'{1e3 * found["read_seconds"]:.1f} | '
            f'{in_words(found["bytes_per_view"])} |')


def main() -> None:
    args = parse_args()
    found = {}
    with DefaultScope.overwrite_default_scope('mmdet'):
        for config in args.configs:
            cfg = load_config(config, args.cfg_options, data_root=args.data_root)
            if 'teacher' not in cfg.model:
                raise SystemExit(f'{config}: model.teacher is missing; a distil config with one teacher is measured')
            print(f'== {config}')
            with tempfile.TemporaryDirectory() as folder:
                found[config] = measure(cfg, args, folder)
            print(row(os.path.splitext(os.path.basename(config))[0], found[config]), flush=True)
    print('\n| config | plain step, ms | live teacher (ratio) | recorded (ratio) | in memory (ratio) | recorded / '
          'in memory | reading, ms | on disk, a view |\n|-|-:|-:|-:|-:|-:|-:|-:|')
    for config, figures in found.items():
        print(row(os.path.splitext(os.path.basename(config))[0], figures))
    print(f'\n{args.device}, {torch.get_num_threads()} threads, batch {next(iter(found.values()))["batch_size"]}, '
          f'medians of {args.repeat} interleaved rounds, {args.clock} time, files '
          + ('dropped from the page cache' if args.cold else 'in the page cache'))
    write_json(args.json, device=args.device, cold=args.cold, configs=found)


if __name__ == '__main__':
    main()
