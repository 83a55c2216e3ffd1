#!/usr/bin/env python
"""What distillation costs at scale, on paper: the teacher's work, and disk and network of its recorded answers.

``python tools/benchmarks/cost_model.py DISTIL_CONFIG [DISTIL_CONFIG ...] [--size 800 1344] [--images 1000000]``. No
weights are read: student and teacher run on PyTorch's ``meta`` device, where tensors have shapes and no values, so that
sizes are exact and any resolution costs seconds. For each config:

- GFLOP of one image in the teacher, as far as the terms use it, and in the student's backbone, neck and dense head or
  RPN (multiplications and additions counted apart, convolutions and matrix products alone);
- bytes of one view in a record, and of ``--views`` views (2: with mirrored ones) of ``--images`` images;
- hours of ``--epochs`` epochs of ``--students`` runs in the live teacher at ``--teraflops``, and of recording it once;
- what a machine that trains at ``--rate`` images a second reads, MB/s.
"""
import argparse
import os
from typing import Any

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch.utils.flop_counter import FlopCounterMode

from kd_det.config import load_config
from kd_det.sources import Pass
from kd_det.sources.answers import kept_for, of_pass, runs_roi_head
from kd_det.sources.layers import fake_samples, part_of, run_through
from kd_det.sources.shards import in_words

HALF = 2  # bytes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='DISTIL_CONFIG', help='configs with one teacher')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'),
                        help='of the padded canvas')
    parser.add_argument('--images', type=int, default=1_000_000)
    parser.add_argument('--views', type=int, default=2, help='of each image: 2 with mirrored ones (default)')
    parser.add_argument('--epochs', type=int, default=12)
    parser.add_argument('--students', type=int, default=1, help='runs that one teacher serves')
    parser.add_argument('--teraflops', type=float, default=30.,
                        help='what the teacher reaches on the device (default 30)')
    parser.add_argument('--rate', type=float, default=20., help='images a second of a training machine (default 20)')
    return parser.parse_args()


def gflop(run: Any) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 1e9


def measure(cfg: Config, size: tuple[int, int]) -> dict[str, float]:
    """GFLOP of teacher and student, bytes of a view."""
    model = MODELS.build(cfg.model).eval()
    teacher, terms = model.teacher, list(model.terms)
    unasked = [f'{term.key} {type(term).__name__}' for term in terms if term.asks() is None]
    asks = tuple(dict.fromkeys(ask for term in terms for ask in term.asks() or ()))
    kept, found = kept_for(asks), {}
    scale = teacher.scale_factor
    image = torch.empty(1, 3, size[0] * scale, size[1] * scale, device='meta')
    model.to('meta')  # the teacher goes along

    def ask() -> None:
        whole = any(part_of(one) != 'backbone' for one in kept) or bool(unasked)
        run = Pass(teacher.model, image, fake_samples(image), teacher.shapes, whole, teacher.rpn_levels)
        found.update(of_pass(run, kept, teacher.key))

    def student() -> None:
        own = torch.empty(1, 3, *size, device='meta')
        run_through(model, own, {'rpn_head'} if hasattr(model, 'rpn_head') else {'bbox_head'})
    figures = dict(teacher=gflop(ask), student=gflop(student), unasked=unasked, rois=runs_roi_head(asks))
    # a neck that is a hint and is cut into RoIs is kept once
    distinct = {id(tensor): tensor for tensor in found.values()}
    return dict(figures, bytes=HALF * sum(tensor.numel() for tensor in distinct.values()))


def row(name: str, found: dict[str, Any], args: argparse.Namespace) -> str:
    """A line of the table."""
    hours = found['teacher'] * args.images / (args.teraflops * 1e3) / 3600
    cells = [name, f'{found["student"]:.0f}', f'{found["teacher"]:.0f}', f'{hours * args.epochs * args.students:.0f}']
    if found['unasked']:
        return f'| {" | ".join(cells)} | cannot be recorded: {", ".join(found["unasked"])} | | | |'
    total = found['bytes'] * args.views * args.images
    return (f'| {" | ".join(cells)} | {hours * args.views:.0f} | {in_words(found["bytes"])}'
            f'{", and its RoI head runs" if found["rois"] else ""} | {in_words(total)} | '
            f'{found["bytes"] * args.rate / 1e6:.0f} |')


def main() -> None:
    args = parse_args()
    lines = []
    with DefaultScope.overwrite_default_scope('mmdet'):
        for config in args.configs:
            cfg = load_config(config)
            if 'teacher' not in cfg.model:
                raise SystemExit(f'{config}: model.teacher is missing; a distil config with one teacher is looked at')
            lines.append(row(os.path.splitext(os.path.basename(config))[0], measure(cfg, tuple(args.size)), args))
    print(f'| config | student, GFLOP | teacher, GFLOP | live, h | recorded once, h | a view | {args.images:,} images '
          f'x {args.views} views | read, MB/s |\n|-|-:|-:|-:|-:|-:|-:|-:|')
    print('\n'.join(lines))
    print(f'\ncanvas {args.size[0]}x{args.size[1]}, {args.epochs} epochs of {args.students} student(s), teacher at '
          f'{args.teraflops:g} TFLOP/s, {args.rate:g} images/s a machine')


if __name__ == '__main__':
    main()
