#!/usr/bin/env python
"""A step of kd_det's LAD against one of MMDetection's own ``LAD`` detector, on PAA.

``python tools/benchmarks/lad_step.py LAD_CONFIG [--teacher-checkpoint FILE]``. Both are built from the same student and
teacher, and measured in turn on the same batches in one process, beside the plain student's step and the plain
teacher's forward. A step is preprocessing, loss, backward and the optimizer; data loading is not in it. Use trained
weights for the teacher: how long MMDetection's mixtures take depends on what they are fitted to.
"""
import argparse
import tempfile

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict, DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from kd_det.config import load_config
from kd_det.plain import student_model

from mmdet_own import mmdet_lad  # isort: skip
from step_cost import give_weights  # isort: skip
from timing import add_timing_arguments, interleaved, report_ratio, train_step  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a LAD config of PAA')
    parser.add_argument('--student', metavar='CONFIG',
                        help='another student; the teacher\'s own config: equal networks')
    parser.add_argument('--teacher-checkpoint', metavar='FILE', help='trained weights of the '
                        'teacher; \'config\': what the config names (default: random ones)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    add_timing_arguments(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options, data_root=args.data_root)
    if args.student:
        student = load_config(args.student).model
        cfg.model = ConfigDict(student, **{key: cfg.model[key] for key in ('type', 'teacher')})
    if cfg.model.type != 'LADDistiller':
        parser.error(f'{args.config}: model.type is {cfg.model.type!r}; a LADDistiller of PAA is compared')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    teacher = load_config(cfg.model.teacher.config)
    with DefaultScope.overwrite_default_scope('mmdet'), tempfile.TemporaryDirectory() as folder:
        give_weights(cfg, args.teacher_checkpoint, folder)
        models = {'plain step': student_model(cfg.model), 'kd_det LAD step': cfg.model,
                  'MMDetection LAD step': mmdet_lad(student_model(cfg.model), student_model(teacher.model),
                                                    cfg.model.teacher.checkpoint)}
        for name, model in models.items():
            torch.manual_seed(0)
            models[name] = MODELS.build(model).to(args.device)
            models[name].train()  # MMDetection's LAD returns nothing here
        distilled = models['kd_det LAD step']
        batches = [batch for batch, _ in zip(Runner.build_dataloader(cfg.train_dataloader, seed=0), range(4))]
        work = {name: train_step(model, torch.optim.SGD(model.parameters(), lr=1e-4)) for name, model in models.items()}

        @torch.no_grad()
        def teacher_forward(batch: dict) -> None:
            data = distilled.data_preprocessor(batch, True)
            plain_teacher.bbox_head(plain_teacher.extract_feat(data['inputs']))

        plain_teacher = MODELS.build(student_model(teacher.model)).to(args.device).eval()
        work['teacher forward'] = teacher_forward
        seconds = interleaved(work, batches, args.repeat, args.warmup, args.device)
    report_ratio(seconds, 'kd_det LAD step', {'MMDetection LAD step': 'MMDetection LAD step'}, args.device,
                 len(batches[0]['inputs']), args.json, config=args.config, student=args.student,
                 trained_teacher=bool(args.teacher_checkpoint))


if __name__ == '__main__':
    main()
