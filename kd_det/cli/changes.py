"""Arguments that ``train`` and ``plan`` share: a config and what the command line changes in it."""
import argparse

from mmengine.config import Config, DictAction

from ..config import load_config
from ..plain import set_teacher, with_student


def add_changes(parser: argparse.ArgumentParser) -> None:
    """The config, its data root, teacher, student and options."""
    parser.add_argument('config', help='config file; kd_det::... names one that ships, mmdet::... one of MMDetection')
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the config')
    parser.add_argument('--teacher', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='another teacher')
    parser.add_argument('--student', metavar='CONFIG', help='another student: its model, data and schedule')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override settings of the config, e.g. train_cfg.max_epochs=2; lists as key="[a,b]"')


def changed_config(args: argparse.Namespace) -> Config:
    """The config that the arguments of :func:`add_changes` mean."""
    cfg = load_config(args.config, None if args.student else args.cfg_options, data_root=args.data_root)
    if args.student:
        cfg = with_student(cfg, load_config(args.student, data_root=args.data_root))
        cfg.merge_from_dict(args.cfg_options or {})
    if args.teacher:
        set_teacher(cfg, *args.teacher)
    return cfg
