#!/usr/bin/env python
"""What the junior's option saves: steps whose teacher is asked about some RoIs, against steps in which about all.

``python tools/benchmarks/junior_step.py DISTIL_CONFIG`` for a two-stage config whose ``rcnn_distill`` is on. Measured
in turn on the same batches, in one process, are the plain student's step and distilled steps that ask about a share of
the RoIs, once with all terms of the config and once with ``rcnn_distill`` alone (no RPN term and no hint, which look at
whole images and so make the teacher's backbone run whatever is undecided). Which RoIs are undecided is prescribed, not
the student's: ``spread`` evenly over all images, or those of the first images (``images``) and none of the others::

    ratio = median step / median step that asks about all RoIs, of the same terms
    saved = the same of what distillation adds, (step - plain) / (all - plain)

Weights are random unless ``--teacher-checkpoint`` names some, which changes no shape that is computed.
"""
import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, save_checkpoint
from torch import Tensor, nn

from kd_det.config import load_config
from kd_det.plain import detector_config, student_model
from kd_det.terms import rcnn

from timing import (  # isort: skip
    CLOCKS, add_timing_arguments, interleaved, medians, print_timings, train_step, write_json)

SHARES = (0.0, 0.25, 0.5)
PLAIN = 'plain student'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='DISTIL_CONFIG')
    parser.add_argument('--teacher-checkpoint', help='trained weights of the teachers (default: random ones)')
    parser.add_argument('--batch-size', type=int, help='instead of the config\'s')
    parser.add_argument('--shares', type=float, nargs='+', default=SHARES, help='of RoIs that are asked about')
    add_timing_arguments(parser)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def teachers_of(model: dict) -> list[dict]:
    """The configs of all teachers that have one."""
    named = {**(model.get('sources') or {}), 'teacher': model.get('teacher') or {}}
    return [source for source in named.values() if 'config' in source]


def give_weights(model: dict, path: str | None, folder: str) -> None:
    """Trained or random weights for every teacher."""
    for i, source in enumerate(teachers_of(model)):
        source.checkpoint = path
        if path is None:
            source.checkpoint = f'{folder}/{i}.pth'
            network = MODELS.build(detector_config(source.config, source.get('cfg_options'), 'teacher'))
            save_checkpoint(dict(state_dict=network.state_dict()), source.checkpoint)


@contextmanager
def undecided(share: float, where: str) -> Iterator[None]:
    """The student cannot decide ``share`` of the RoIs: every n-th one, or the first ones, which are of the first
    images.
    """
    def prescribed(scores: Tensor, use_sigmoid: bool) -> Tensor:
        place = (torch.arange(len(scores), device=scores.device) + 0.5) / len(scores)
        if where == 'spread':
            place = (place * len(scores)).floor() * share % 1
            return torch.where(place + 1e-6 < share, 0.0, 1.0)
        return torch.where(place < share, 0.0, 1.0)
    own, rcnn.certainty = rcnn.certainty, prescribed
    try:
        yield
    finally:
        rcnn.certainty = own


def asking(step: Callable, share: float, where: str) -> Callable:
    def run(batch: dict) -> None:
        with undecided(share, where):
            step(batch)
    return run


def networks(cfg: Config, device: str) -> dict[str, nn.Module]:
    """The plain student; with all terms; with the R-CNN term alone."""
    every, alone = copy.deepcopy(cfg.model), copy.deepcopy(cfg.model)
    for model in (every, alone):
        model.rcnn_distill.undecided = 0.5
    alone.rpn_distill, alone.hints = None, []
    found = {}
    for name, model in ((PLAIN, student_model(cfg.model)), ('all terms', every), ('R-CNN alone', alone)):
        torch.manual_seed(0)
        found[name] = MODELS.build(model).to(device).train()
    return found


def main() -> None:
    args = parse_args()
    if not all(0 <= share < 1 for share in args.shares):
        raise SystemExit(f'--shares: found {args.shares}; numbers from 0 to less than 1 are expected')
    with DefaultScope.overwrite_default_scope('mmdet'), tempfile.TemporaryDirectory() as folder:
        cfg = load_config(args.config, args.cfg_options, data_root=args.data_root)
        if not cfg.model.get('rcnn_distill'):
            raise SystemExit(f'{args.config}: model.rcnn_distill is missing; it is what has the option undecided')
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        if args.batch_size:
            cfg.train_dataloader.batch_size = args.batch_size
        give_weights(cfg.model, args.teacher_checkpoint, folder)
        batches = [batch for batch, _ in zip(Runner.build_dataloader(cfg.train_dataloader, seed=0), range(4))]
        steps = {name: train_step(model, torch.optim.SGD(model.parameters(), lr=1e-4))
                 for name, model in networks(cfg, args.device).items()}
        work = {PLAIN: steps.pop(PLAIN)}
        for name, step in steps.items():
            work[f'{name}, all'] = asking(step, 1.0, 'images')
            for share in args.shares:
                for where in ('spread', 'images') if share else ('none',):
                    work[f'{name}, {share:.0%} {where}' if share else f'{name}, none'] = asking(step, share, where)
        seconds = interleaved(work, batches, args.repeat, args.warmup, args.device, CLOCKS[args.clock])
    print_timings(seconds)
    median = medians(seconds)
    print('\n| terms, RoIs asked about | step ms | ratio | of what distillation adds |\n|-|-:|-:|-:|')
    for name in work:
        if name == PLAIN:
            print(f'| {name} | {1e3 * median[name]:.0f} | | |')
            continue
        whole = median[name.partition(',')[0] + ', all']
        print(f'| {name} | {1e3 * median[name]:.0f} | {median[name] / whole:.2f} | '
              f'{(median[name] - median[PLAIN]) / (whole - median[PLAIN]):.2f} |')
    write_json(args.json, config=args.config, median_seconds=median, rounds=args.repeat, clock=args.clock,
               device=args.device, batch_size=len(batches[0]['inputs']))


if __name__ == '__main__':
    main()
