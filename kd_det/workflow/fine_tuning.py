"""What of a teacher of other classes is taken over: every weight that does not hang on the classes."""
import copy
import os
import os.path as osp
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from ..build import build
from ..errors import CheckpointMismatch, ConfigError
from ..files import save_whole
from ..own_data import class_numbers
from ..plain import student_model
from ..weights import classes_of, load_whole, read_state_dict


@dataclass
class Teacher:
    """A teacher as it comes.

    Attributes:
        checkpoint: its file or URL.
        state: weights.
        classes: names by label; None: the checkpoint does not say.
    """

    checkpoint: str
    state: dict[str, Any]
    classes: tuple[str, ...] | None


def read_teacher(cfg: Config, checkpoint: str) -> Teacher:
    """Read a teacher's checkpoint, and see that it is that of its config, whatever its classes are.

    Raises:
        ConfigError: there is no such file.
        CheckpointMismatch: it is of another network.
    """
    if '://' not in checkpoint and not osp.isfile(checkpoint):
        raise ConfigError(f'--teacher {cfg.filename} {checkpoint}: there is no checkpoint {checkpoint!r}; give the '
                          'file or URL of the trained teacher')
    state, meta = read_state_dict(checkpoint)
    teacher = Teacher(checkpoint, state, classes_of(meta))
    own = built('--teacher', cfg, len(teacher.classes) if teacher.classes else None)
    try:
        load_whole(own, state, f'--teacher checkpoint {checkpoint}')
    except CheckpointMismatch as error:
        if any(name in own.state_dict() for name in state):
            raise
        raise CheckpointMismatch(f'{error}\nNot one tensor is the detector\'s. If these are weights of a backbone, '
                                 'name them in the config (backbone.init_cfg, or TimmBackbone\'s checkpoint) and give '
                                 '--teacher CONFIG alone: it is trained first') from error
    return teacher


def built(flag: str, cfg: Config, classes: int | None = None) -> nn.Module:
    """The plain detector for so many classes; None: as many as its config says. No random state is changed.

    Raises:
        ConfigError: it cannot be built; the message names ``flag`` and the file.
    """
    plain = Config(dict(model=copy.deepcopy(student_model(cfg.model))))
    if classes is not None:
        plain.merge_from_dict({f'model.{path}': number for path, number in class_numbers(plain.model, classes).items()})
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmdet'):
        return build(f'{flag} {cfg.filename}: model', ConfigDict(plain.model), MODELS)


def begins_with(cfg: Config) -> str:
    """Which weights a training of a detector's config begins with, in words."""
    if cfg.get('load_from'):
        return f'{cfg.load_from} (load_from of its config)'
    backbone = cfg.model.get('backbone') or {}
    own = backbone.get('init_cfg') or {}
    if str(own.get('type')).rsplit('.', 1)[-1] == 'Pretrained':
        return f'the backbone {own.get("checkpoint")} (init_cfg of its config)'
    if backbone.get('type') == 'TimmBackbone' and (backbone.get('checkpoint') or backbone.get('pretrained')):
        return f'the backbone {backbone.get("checkpoint") or "that timm has"} (of its config)'
    return 'RANDOM WEIGHTS: its config names none, neither load_from nor a backbone\'s'


def of_classes(cfg: Config) -> list[str]:
    """Names of the tensors whose shape hangs on the number of classes."""
    own, other = (built('--teacher', cfg, number).state_dict() for number in (2, 3))
    return [name for name in own if own[name].shape != other[name].shape]


def write_start(teacher: Teacher, names: list[str], path: str, overwrite: bool) -> None:
    """The weights that fine-tuning starts from: the teacher's without the tensors ``names``.

    Raises:
        ConfigError: the file is there, made from another checkpoint, and ``overwrite`` is not given.
    """
    origin = dict(checkpoint=osp.abspath(teacher.checkpoint) if '://' not in teacher.checkpoint else teacher.checkpoint,
                  left_out=names, size=os.path.getsize(teacher.checkpoint) if osp.isfile(teacher.checkpoint) else None)
    if osp.isfile(path):
        there = read_state_dict(path)[1].get('start_of')
        if there == origin:
            return
        if not overwrite:
            raise ConfigError(f'{path} is there and starts from another teacher ({(there or {}).get("checkpoint")}); '
                              '--overwrite replaces it, another --out leaves it')
    save_whole(dict(state_dict={name: value for name, value in teacher.state.items() if name not in names},
                    meta=dict(start_of=origin)), path)
