"""Interleaved timings: every figure of a benchmark is a ratio of things measured in turn in one process."""
import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
"""``cpu``: processor time of this process, all threads. On a machine that others use, the steadier of the two; waiting
for a disk does not show in it.
"""


def interleaved(work: dict[str, Callable], batches: list, repeat: int = 20, warmup: int = 3,
                device: str = 'cpu', clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Run every entry of ``work`` once a round, on the same batch, so that a busy moment hits them alike.

    Args:
        work: name to a function of one batch, which may change it: each gets its own copy.
        batches: used in turn.
        repeat, warmup (int): rounds that count, and rounds before them.
        device (str): on CUDA the clock waits for the device.
        clock: what is read before and after; :data:`CLOCKS`.

    Returns:
        dict[str, list[float]]: seconds of each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warmup + repeat):
        for name, run in work.items():
            batch = copy.deepcopy(batches[turn % len(batches)])
            synchronize(device)
            start = clock()
            run(batch)
            synchronize(device)
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return seconds


class Clock:
    """Seconds of the parts of a step, by name.

    Args:
        device (str): on CUDA the clock waits for the device at both ends of a part, so that a step with a clock is a
            little slower than one without: whole steps are timed without.
        clock: as in :func:`interleaved`.
    """

    def __init__(self, device: str = 'cpu', clock: Callable[[], float] = time.perf_counter) -> None:
        self.device, self.clock = device, clock
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        synchronize(self.device)
        start = self.clock()
        yield
        synchronize(self.device)
        self.seconds.setdefault(name, []).append(self.clock() - start)


def synchronize(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize()


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def p90(values: list[float]) -> float:
    """The ninth decile."""
    return statistics.quantiles(values, n=10)[-1]


def print_timings(seconds: dict[str, list[float]]) -> None:
    """One line per entry: median and quartiles in milliseconds."""
    width = max(len(name) for name in seconds)
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f'{name:{width}s} {1e3 * middle:8.1f} ms  (quartiles {1e3 * low:.1f} to {1e3 * high:.1f}, '
              f'{len(values)} rounds)')


def report_ratio(seconds: dict[str, list[float]], over: str, under: dict[str, str], device: str, batch_size: int,
                 path: str | None = None, **figures) -> None:
    """Print all timings and ``over`` / sum of ``under``, ratios of medians; ``path`` also gets them as JSON.

    Args:
        under: names in ``seconds`` to what they are called in the printed ratio.
    """
    print_timings(seconds)
    median = medians(seconds)
    ratio = median[over] / sum(median[name] for name in under)
    terms = ' + '.join(under.values())
    print(f'{over} / {terms if len(under) == 1 else f"({terms})"} = {ratio:.3f} on {device}, '
          f'{torch.get_num_threads()} threads, batch {batch_size}')
    write_json(path, device=device, ratio=ratio, median_seconds=median, rounds=len(seconds[over]), **figures)


def train_step(model, optimizer, clock: Clock | None = None) -> Callable:
    """A function of a batch: preprocessing, loss, backward and the optimizer, as one training step has them.

    Args:
        clock: also measures the parts: 'loss' (the student's forward pass, its losses, and what is distilled),
            'backward' and 'optimizer'.
    """
    part = clock.part if clock is not None else lambda name: nullcontext()

    def step(batch: dict) -> None:
        data = model.data_preprocessor(batch, True)
        with part('loss'):
            loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        with part('backward'):
            loss.backward()
        with part('optimizer'):
            optimizer.step()
    return step


def add_timing_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every benchmark of steps has."""
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the config')
    parser.add_argument('--repeat', type=int, default=20, help='measured rounds (default 20)')
    parser.add_argument('--warmup', type=int, default=3, help='rounds before (default 3)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--clock', choices=list(CLOCKS), default='wall', help='time by the wall, or of the processor: '
                        'steadier where others use the machine')
    parser.add_argument('--json', help='also write the figures here')


def write_json(path: str | None, **figures) -> None:
    if path:
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(dict(figures, threads=torch.get_num_threads(), torch=torch.__version__), file, indent=1)
            file.write('\n')
