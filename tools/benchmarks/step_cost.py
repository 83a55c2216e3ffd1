#!/usr/bin/env python
"""What distillation costs: a distilled step against a plain student step plus a plain teacher forward.

``python tools/benchmarks/step_cost.py DISTIL_CONFIG [--teacher-checkpoint FILE]``. The three are measured in turn on the
same batches in one process, and the ratio of the medians is printed::

    distilled step / (plain student step + plain teacher forward)

A step is preprocessing, loss, backward and the optimizer; data loading is not in it. The teacher forward is the features
and the dense head or RPN of the plain detector in eval mode without gradients: unfused, float32, default memory format,
also where the distiller's own teacher has ``fuse_conv_bn`` or ``channels_last``. At cross-resolution it sees its own,
larger view. Without ``--teacher-checkpoint`` the teacher's weights are random, which changes no shape that it computes.
"""
import argparse
import os
import tempfile

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.config import DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, save_checkpoint

from kd_det.config import load_config
from kd_det.plain import student_model
from kd_det.sources import FrozenTeacher

from timing import add_timing_arguments, interleaved, report_ratio, train_step  # isort: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a distil config')
    parser.add_argument('--teacher-checkpoint', help='trained weights of the teacher (default: random ones)')
    add_timing_arguments(parser)
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
        plain_teacher = FrozenTeacher(**{**cfg.model.teacher, 'fuse_conv_bn': False, 'channels_last': False},
                                      student_preprocessor=distilled.data_preprocessor)
        plain_teacher.load()
        plain_teacher.model.to(args.device)
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        batches = [batch for batch, _ in zip(loader, range(4))]

        def teacher_forward(batch) -> None:
            data = distilled.data_preprocessor(batch, True)
            inputs = plain_teacher.prepare(data['inputs'], data['data_samples'])
            with torch.no_grad():
                teacher = plain_teacher.model
                features = teacher.extract_feat(inputs)
                getattr(teacher, 'rpn_head', None) and teacher.rpn_head(features)
                hasattr(teacher, 'bbox_head') and teacher.bbox_head(features)

        work = {'plain step': train_step(plain, torch.optim.SGD(plain.parameters(), lr=1e-4)),
                'teacher forward': teacher_forward,
                'distilled step': train_step(distilled, torch.optim.SGD(distilled.parameters(), lr=1e-4))}
        seconds = interleaved(work, batches, args.repeat, args.warmup, args.device)
    report_ratio(seconds, 'distilled step', {name: name for name in ('plain step', 'teacher forward')}, args.device,
                 len(batches[0]['inputs']), args.json, config=args.config)


if __name__ == '__main__':
    main()
