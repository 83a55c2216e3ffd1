#!/usr/bin/env python
"""What ``tools/dist_train.sh`` makes of a second process: images a second of two ranks against one, each with its
batch.

``python tools/benchmarks/ranks.py CONFIG [--ranks 2]``. A run with one process and a run with N, one thread and the
config's batch each, alternate; each rank notes the time of its steps, data loading included; the first do not count::

    efficiency = images a second of N ranks / (N * images a second of one rank)

On one machine the ranks share memory, caches and whatever else runs: ``beside each other`` is the same with N runs of
one process each that know nothing of each other, what sharing costs without any exchange. Gradients go through gloo
over the loopback. On a machine that others use, times by the wall say how busy it was; ``processor time`` is one rank's
alone over that of one of N: what averaging gradients adds to the work of a rank, without waiting.
"""
import argparse
import json
import os
import os.path as osp
import statistics
import subprocess
import sys
import tempfile

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
from kd_det.config import load_config

SHORT = """
_base_ = {config!r}
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={steps}, val_interval=10**9)
param_scheduler = []
default_hooks = dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None)
log_processor = dict(by_epoch=False)
train_dataloader = dict(num_workers=0, persistent_workers=False)
custom_imports = dict(imports=['kd_det', 'step_times'])
custom_hooks = [dict(type='StepTimes')]
"""
HOOK = """
import json
import os
import time
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class StepTimes(Hook):
    priority = 'LOWEST'
    last = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        now = time.perf_counter(), time.process_time()
        if self.last is not None:
            with open(os.path.join(runner.work_dir, f'times{get_rank()}'), 'a') as file:
                file.write(json.dumps([one - other for one, other in zip(now, self.last)]) + chr(10))
        self.last = now
"""
ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))


def started(config: str, work_dir: str, ranks: int, port: int, options: list[str]) -> subprocess.Popen:
    """A training of a few steps."""
    command = ['bash', osp.join(ROOT, 'tools', 'dist_train.sh'), config, str(ranks)] if ranks > 1 else \
        [sys.executable, osp.join(ROOT, 'tools', 'train.py'), config]
    path = os.pathsep.join(filter(None, [osp.dirname(config), os.environ.get('PYTHONPATH')]))
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHON=sys.executable, PORT=str(port), PYTHONPATH=path)
    changes = ['--cfg-options', *options] if options else []
    return subprocess.Popen([*command, '--work-dir', work_dir, *changes], env=environment, cwd=ROOT,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def seconds_a_step(process: subprocess.Popen, work_dir: str, skip: int) -> tuple[float, float]:
    """Medians of what the ranks noted, when the run has ended: by the wall, and of processor time."""
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f'{work_dir}: {errors[-2000:]}')
    rows = []
    for name in os.listdir(work_dir):
        if name.startswith('times'):
            with open(osp.join(work_dir, name), encoding='utf-8') as file:
                rows += [json.loads(line) for line in file][skip:]
    return tuple(statistics.median(column) for column in zip(*rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--ranks', type=int, default=2)
    parser.add_argument('--steps', type=int, default=30, help='of each run (default 30)')
    parser.add_argument('--skip', type=int, default=8, help='steps at the beginning that do not count (default 8)')
    parser.add_argument('--repeat', type=int, default=3, help='rounds (default 3)')
    parser.add_argument('--port', type=int, default=29600, help='the first of those that the rounds use')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='passed on to the runs')
    parser.add_argument('--json', help='also write the figures here')
    args = parser.parse_args()
    batch = load_config(args.config).train_dataloader.batch_size
    found: dict[str, list[list[float]]] = {'one': [], 'ranks': [], 'beside': []}
    with tempfile.TemporaryDirectory() as folder:
        short = osp.join(folder, 'short.py')
        with open(short, 'w', encoding='utf-8') as file:
            file.write(SHORT.format(config=osp.abspath(args.config), steps=args.steps))
        with open(osp.join(folder, 'step_times.py'), 'w', encoding='utf-8') as file:
            file.write(HOOK)
        for turn in range(args.repeat):
            for kind, runs, ranks in (('one', 1, 1), ('ranks', 1, args.ranks), ('beside', args.ranks, 1)):
                places = [osp.join(folder, f'{kind}{turn}_{i}') for i in range(runs)]
                processes = [started(short, place, ranks, args.port + turn, args.cfg_options) for place in places]
                seconds = [seconds_a_step(process, place, args.skip) for process, place in zip(processes, places)]
                found[kind].append([statistics.mean(column) for column in zip(*seconds)])
                print('{}: {:.0f} ms a step, {:.0f} ms of processor time'.format(
                    kind, *(1e3 * value for value in found[kind][-1])), flush=True)
    (one, own), (ranks, theirs), (alone, _) = (
        [statistics.median(column) for column in zip(*found[kind])] for kind in ('one', 'ranks', 'beside'))
    print(f'one rank {batch / one:.2f} images/s, {args.ranks} ranks {args.ranks * batch / ranks:.2f}: efficiency '
          f'{one / ranks:.2f}; {args.ranks} runs beside each other, without exchange: {one / alone:.2f}; processor '
          f'time {own / theirs:.2f}; medians of {args.repeat} rounds, batch {batch} each, one thread each, load '
          f'{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump(dict(seconds=found, batch=batch, ranks=args.ranks), file, indent=1)


if __name__ == '__main__':
    main()
