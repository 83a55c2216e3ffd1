#!/usr/bin/env python
"""Train a detector, distilled or not: ``python tools/train.py CONFIG``, with MMDetection's flags and a few more."""
import argparse
import os
import os.path as osp

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import DefaultScope

from kd_det.config import keep_config, load_config
from kd_det.detectors import Distiller
from kd_det.engine.distributed import prepare_launcher
from kd_det.engine.training import run
from kd_det.plain import set_teacher, with_student


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file; mmdet::... names one of MMDetection')
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default work_dirs/<config name>)')
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the config')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue from this checkpoint; without a path, from the latest in the work directory')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate from auto_scale_lr.base_batch_size to the real batch size')
    parser.add_argument('--seed', type=int, help='random seed (default: the config\'s)')
    parser.add_argument('--teacher', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='another teacher')
    parser.add_argument('--student', metavar='CONFIG', help='another student: its model, data and schedule')
    parser.add_argument('--print-plan', action='store_true', help='say what is distilled where, and stop')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings of the config, e.g. train_cfg.max_epochs=2; lists as key="[a,b]"')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def print_plan(cfg: Config) -> None:
    """Build the detector as the runner would and print its distillation plan."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        model = MODELS.build(cfg.model)
    print('\n'.join(model.plan()) if isinstance(model, Distiller) else
          f'{type(model).__name__}: a plain detector, nothing is distilled')


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, None if args.student else args.cfg_options, data_root=args.data_root)
    if args.student:
        cfg = with_student(cfg, load_config(args.student, data_root=args.data_root))
        cfg.merge_from_dict(args.cfg_options or {})
    if args.teacher:
        set_teacher(cfg, *args.teacher)
    if args.print_plan:
        print_plan(cfg)
        return
    prepare_launcher(cfg, args.launcher)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    keep_config(cfg)
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    if args.amp:
        if get_device() == 'cpu':
            raise SystemExit('--amp: MMEngine\'s mixed precision needs a GPU, and none was found; leave --amp out')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size; '
                             'add auto_scale_lr=dict(base_batch_size=N) with the batch size that its lr is meant for')
        cfg.auto_scale_lr.enable = True
    run(cfg, args.resume)


if __name__ == '__main__':
    main()
