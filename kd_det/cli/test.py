"""``kd-det test``: evaluate a checkpoint, COCO mAP through pycocotools."""
import argparse
import os
import os.path as osp

from mmdet.evaluation import DumpDetResults
from mmengine.config import Config
from mmengine.runner import Runner

from ..config import load_config
from ..config_types import check_types
from ..engine.data_check import check_data, report
from ..engine.distributed import leave, prepare_launcher
from ..errors import ConfigError
from ..files import check_writable
from ..plain import deployed_config
from ..weights import load_deployed
from .changes import add_data, classes_of
from .values import Options

SUMMARY = 'evaluate a checkpoint: COCO mAP'
EXAMPLES = """
  kd-det test configs/faster_rcnn/faster-rcnn_r18_fpn_1x_coco.py work_dirs/run/epoch_12.pth
  kd-det test kd_det::colad/paa_r18_fpn_1x_coco_colad-r50.py epoch_12.pth --network second --out detections.pkl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('config', help='config file; mmdet::... names one of MMDetection')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='where the evaluation log goes (default work_dirs/<config name>)')
    add_data(parser)
    parser.add_argument('--network', choices=['first', 'second'],
                        help='which network of a CoLAD config (default first); the checkpoint may be that of both, or '
                             'the network\'s own')
    parser.add_argument('--out', help='write the detections to this .pkl file')
    parser.add_argument('--show-dir', help='draw the detections into <work dir>/<timestamp>/<this folder>')
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
                        help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Evaluate; the teacher's files are not needed."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise ConfigError(f'--out {args.out}: MMDetection writes pickle files; end the name in .pkl')
    for flag, place, folder in (('--work-dir', args.work_dir, True), ('--out', args.out, False)):
        if place:
            check_writable(flag, place, folder)
    cfg = load_config(args.config, args.cfg_options, data_root=args.data_root, classes=classes_of(args))
    network = args.network or ('first' if cfg.model.get('type') == 'CoLAD' else None)
    cfg = deployed_config(cfg, network)
    prepare_launcher(cfg, args.launcher)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    cfg.load_from, cfg.resume = None, False
    if args.show_dir:
        # a config without MMDetection's default runtime has a visualizer that cannot draw boxes
        cfg.visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')],
                              name='visualizer_of_detections')
        cfg.default_hooks.visualization = dict(type='DetVisualizationHook', draw=True, test_out_dir=args.show_dir)
    _evaluate(cfg, args, network)
    leave()
    return 0


def _evaluate(cfg: Config, args: argparse.Namespace, network: str | None) -> None:
    check_types(cfg)
    findings = check_data(cfg, ('test_dataloader',))
    runner = Runner.from_cfg(cfg)
    report(findings, runner.logger)
    load_deployed(runner.model, args.checkpoint, network)
    runner.logger.info(f'Evaluating {args.checkpoint}' + (f', the {network} network' if network else ''))
    if args.out:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    runner.test()
