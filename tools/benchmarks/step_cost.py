#!/usr/bin/env python
"""What distillation costs: a distilled step against a plain student step plus a plain teacher forward.

``python tools/benchmarks/step_cost.py DISTIL_CONFIG [--teacher-checkpoint FILE]``. The three are measured in turn on the
same batches in one process, and the ratio of the medians is printed::

    distilled step / (plain student step + plain teacher forward)

A step is preprocessing, loss, backward and the optimizer; data loading is not in it. The teacher forward is the features
and the dense head or RPN of the plain detector in eval mode without gradients: unfused, float32, default memory format. At
cross-resolution it sees its own, larger view. Without ``--teacher-checkpoint`` the teacher's weights are random, which
changes no shape that it computes.
"""
import argparse
import copy
import json
import os
import statistics
import tempfile
import time

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.config import DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, save_checkpoint

from kd_det.detectors import student_model
from kd_det.engine.config import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a distil config')
    parser.add_argument('--teacher-checkpoint', help='trained weights of the teacher (default: random ones)')
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the config')
    parser.add_argument('--repeat', type=int, default=20, help='measured rounds (default 20)')
    parser.add_argument('--warmup', type=int, default=3, help='rounds before (default 3)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', help='also write the figures here')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def with_random_teacher(cfg, folder: str) -> str:
    """Save untrained weights of the configured teacher; returns the file."""
    teacher = cfg.model.teacher.config
    teacher = load_config(teacher) if isinstance(teacher, str) else teacher
    model = MODELS.build(student_model(teacher.model if 'model' in teacher else teacher))
    path = os.path.join(folder, 'teacher.pth')
    save_checkpoint(dict(state_dict=model.state_dict()), path)
    return path


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, data_root=args.data_root)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    with DefaultScope.overwrite_default_scope('mmdet'), tempfile.TemporaryDirectory() as folder:
        cfg.model.teacher.checkpoint = args.teacher_checkpoint or with_random_teacher(cfg, folder)
        torch.manual_seed(0)
        distilled = MODELS.build(cfg.model).to(args.device).train()
        torch.manual_seed(0)
        plain = MODELS.build(student_model(cfg.model)).to(args.device).train()
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        batches = [batch for batch, _ in zip(loader, range(4))]
        optimizers = {model: torch.optim.SGD(model.parameters(), lr=1e-4) for model in (plain, distilled)}

        def step(model, batch) -> None:
            data = model.data_preprocessor(batch, True)
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            optimizers[model].zero_grad()
            loss.backward()
            optimizers[model].step()

        def teacher_forward(batch) -> None:
            data = distilled.data_preprocessor(batch, True)
            inputs = distilled.teacher.prepare(data['inputs'], data['data_samples'])
            with torch.no_grad():
                teacher = distilled.teacher.model
                features = teacher.extract_feat(inputs)
                getattr(teacher, 'rpn_head', None) and teacher.rpn_head(features)
                hasattr(teacher, 'bbox_head') and teacher.bbox_head(features)

        work = {'plain step': lambda b: step(plain, b), 'teacher forward': teacher_forward,
                'distilled step': lambda b: step(distilled, b)}
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for turn in range(args.warmup + args.repeat):
            for name, run in work.items():
                batch = copy.deepcopy(batches[turn % len(batches)])
                synchronize(args.device)
                start = time.perf_counter()
                run(batch)
                synchronize(args.device)
                if turn >= args.warmup:
                    seconds[name].append(time.perf_counter() - start)
    report(args, seconds)


def synchronize(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize()


def report(args: argparse.Namespace, seconds: dict[str, list[float]]) -> None:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        low, _, high = statistics.quantiles(values, n=4)
        print(f'{name:16s} {1e3 * median[name]:8.1f} ms  (quartiles {1e3 * low:.1f} to {1e3 * high:.1f}, '
              f'{len(values)} rounds)')
    ratio = median['distilled step'] / (median['plain step'] + median['teacher forward'])
    print(f'distilled step / (plain step + teacher forward) = {ratio:.3f} on {args.device}, '
          f'{torch.get_num_threads()} threads')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump(dict(config=args.config, device=args.device, threads=torch.get_num_threads(), ratio=ratio,
                           median_seconds=median, rounds=args.repeat), file, indent=1)


if __name__ == '__main__':
    main()
