"""Arguments that ``train`` and ``plan`` share: a config and what the command line changes in it."""
import argparse
import os.path as osp

from mmengine.config import Config

from ..config import check_keys, check_model, distilled, load_config
from ..own_data import AUTO
from ..plain import set_teacher, settle_classes, with_student
from .values import Options


def add_changes(parser: argparse.ArgumentParser) -> None:
    """The config, its data root, teacher, student and options."""
    parser.add_argument('config', help='config file; kd_det::... names one that ships, mmdet::... one of MMDetection')
    add_data(parser)
    parser.add_argument('--teacher', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='another teacher')
    parser.add_argument('--student', metavar='CONFIG', help='another student: its model, data and schedule')
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
                        help='override settings of the config, e.g. train_cfg.max_epochs=2; lists as key="[a,b]"')


def add_data(parser: argparse.ArgumentParser) -> None:
    """Where the data set is, and which classes it has."""
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the config')
    parser.add_argument('--classes', nargs='+', metavar='NAME',
                        help='another data set in COCO format: auto (the annotation file\'s categories), a text file, '
                             'or the names in order; sets loaders, evaluators and every head')


def classes_of(args: argparse.Namespace) -> list[str] | str | None:
    """``--classes`` as :func:`kd_det.config.load_config` takes it."""
    words = args.classes
    return words[0] if words and len(words) == 1 and (words[0] == AUTO or osp.isfile(words[0])) else words


def changed_config(args: argparse.Namespace) -> Config:
    """The config that the arguments of :func:`add_changes` mean."""
    place = dict(data_root=args.data_root, classes=classes_of(args))
    options = args.cfg_options or {}
    cfg = load_config(args.config, None if args.student else options, **place)
    check_model(cfg)
    if args.student:
        added = getattr(distilled(cfg.model), 'added', ())
        # what the student's own 'auto' values hang on comes before they are filled, what distillation adds after
        early = {key: value for key, value in options.items()
                 if key.split('.')[0] in ('model', 'data') and key.split('.')[1:2] not in [[name] for name in added]}
        late = {key: value for key, value in options.items() if key not in early}
        cfg = with_student(cfg, load_config(args.student, early, **place))
        check_keys(cfg, late)
        cfg.merge_from_dict(late)
    if args.teacher:
        set_teacher(cfg, *args.teacher)
    settle_classes(cfg)
    return cfg
