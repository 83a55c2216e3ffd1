"""``kd-det train``: train a detector, distilled or not, with MMDetection's flags and a few more."""
import argparse
import os
import os.path as osp

from mmengine.config import Config
from mmengine.device import get_device

from ..chain import Link, links_of, run_chain
from ..config import keep_config
from ..engine.distributed import is_first_process, prepare_launcher
from ..engine.training import run as train
from ..errors import ConfigError
from ..files import check_writable
from .changes import add_changes, changed_config
from .plan import print_plan
from .values import seed

SUMMARY = 'train a detector, distilled or not'
EXAMPLES = """
  kd-det train configs/faster_rcnn/faster-rcnn_r18_fpn_1x_coco.py
  kd-det train kd_det::distill_faster_rcnn/faster-rcnn_r18_fpn_1x_coco_distill-r50.py --data-root /data/coco --amp
  kd-det train DISTIL.py --chain NEAR.py near.pth --chain FAR.py far.pth --work-dir runs/chain
  kd-det train PLAIN.py --links 2 --work-dir runs/control
  kd-det train DISTIL.py --teacher TEACHER.py teacher.pth --student STUDENT.py --work-dir runs/distilled --resume
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_changes(parser)
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default work_dirs/<config name>)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue from this checkpoint; without a path, from the latest in the work directory')
    parser.add_argument('--resume-anyway', action='store_true', help='resume although the config is not the run\'s')
    parser.add_argument('--chain', nargs=2, action='append', metavar=('CONFIG', 'CHECKPOINT'),
                        help='a teacher of a chain, once for each, the nearest to the student first: a run under each, '
                             'from the student of the run before; finished runs are skipped, an interrupted one '
                             'goes on')
    parser.add_argument('--links', type=int, metavar='N',
                        help='N runs of the config, each from the student of the run before: the control of a chain')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate from auto_scale_lr.base_batch_size to the real batch size')
    parser.add_argument('--seed', type=seed, help='random seed (default: the config\'s)')
    parser.add_argument('--print-plan', action='store_true', help='say what is distilled where, and stop')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def check_amp() -> None:
    """Raises :class:`ConfigError` where there is no GPU."""
    if get_device() == 'cpu':
        raise ConfigError('--amp: MMEngine\'s mixed precision needs a GPU, and none was found; leave --amp out')


def run(args: argparse.Namespace) -> int:
    """Train; 0 when the last epoch is done."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = changed_config(args)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    check_writable('--work-dir', cfg.work_dir, folder=True)
    chained = args.chain is not None or args.links is not None
    if args.print_plan:
        for part in [link.cfg for link in _links(cfg, args)] if chained else [cfg]:
            if chained:
                print(f'link {part.chain.link} of {part.chain.of}, in {part.work_dir}:')
            print_plan(part)
        return 0
    prepare_launcher(cfg, args.launcher)
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    if args.amp:
        check_amp()
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size; '
                              'add auto_scale_lr=dict(base_batch_size=N) with the batch size that its lr is meant for')
        cfg.auto_scale_lr.enable = True
    if chained:
        student = run_chain(_links(cfg, args), cfg.work_dir, args.resume_anyway)
        if is_first_process():
            print(f'the student at the end of the chain: {student}')
        return 0
    keep_config(cfg)
    train(cfg, args.resume, args.resume_anyway)
    return 0


def _links(cfg: Config, args: argparse.Namespace) -> list[Link]:
    for given, name, instead in ((args.teacher, '--teacher', 'name each link\'s teacher by --chain'),
                                 (args.resume not in (None, 'auto'), '--resume CHECKPOINT', 'the same command goes on '
                                  'by itself where the chain stopped')):
        if given and (args.chain or name != '--teacher'):
            raise ConfigError(f'{name}: has no meaning with --chain or --links; {instead}')
    return links_of(cfg, [tuple(pair) for pair in args.chain or ()], args.links)
