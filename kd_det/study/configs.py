"""The config of a study's row: the row's file, its options, and the annotation files of the study's split."""
import os.path as osp

from mmengine.config import Config

from ..config import load_config
from ..errors import StudyError
from .definition import Study, StudyRow

PARTS = frozenset(('fit', 'dev', 'train', 'eval', 'val'))
"""What annotation files are called that a split chooses from."""


def split_options(cfg: Config, split: str) -> dict:
    """``--cfg-options`` that make a config train and validate on the annotation files of ``split``.

    Args:
        cfg (Config): its files are called ``<part>.json``. Other training files (a part of the labels, pseudo-labels)
            are the config's own and stay; they are taken for parts of train.
        split (str): ``'fit->dev'``; nothing is changed where the config has those files already.

    Raises:
        StudyError: the config names no annotation file for one of the two, or one of its own in a study of fit -> dev.
    """
    options: dict = {}
    train, evaluation = split.split('->')
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        found = list(ann_files(cfg.get(section), section))
        part = train if section == 'train_dataloader' else evaluation
        if not found and not section.startswith('test'):
            raise StudyError(f'split {split!r}: {section} of the config names no ann_file')
        for key, value in found:
            if section == 'train_dataloader' and osp.splitext(osp.basename(value))[0] not in PARTS:
                if train != 'train':
                    raise StudyError(f'split {split!r}: {key} of the config is {value!r}, which is no part of it '
                                     f'({sorted(PARTS)}), and may hold images of {evaluation}')
                continue
            wanted = osp.join(osp.dirname(value), f'{part}.json')
            if value != wanted:
                options[key] = wanted
    return options


def ann_files(value, key: str):
    """(dotted key, value) of every ``ann_file`` in a part of a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for name, part in items:
        if name == 'ann_file' and isinstance(part, str):
            yield f'{key}.{name}', part
        else:
            yield from ann_files(part, f'{key}.{name}')


def resolve(study: Study, row: StudyRow, root: str = '.') -> tuple[Config, dict]:
    """The resolved config of a row and the ``--cfg-options`` that lead to it, without the teacher's checkpoint."""
    below = osp.join(root, row.config)
    cfg = load_config(below if osp.isfile(below) else row.config, dict(row.options))
    options = {**row.options, **split_options(cfg, study.split)}
    cfg.merge_from_dict(split_options(cfg, study.split))
    return cfg, options
