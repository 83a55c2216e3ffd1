"""What is looked at: deployed detectors, and distillers with what teaches them."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

from ..build import build
from ..compare.runs import Run, find_run
from ..compare.student import build_detector
from ..config import distilled, load_config
from ..detectors import Distiller
from ..errors import CompareError
from ..sources import FrozenTeacher
from ..weights import load_whole, read_state_dict


@dataclass
class Subject:
    """A detector that is looked at, in eval mode.

    Attributes:
        name: as pictures call it.
        cfg: its config, whose test pipeline prepares images.
        model: the deployed detector.
    """
    name: str
    cfg: Config
    model: nn.Module


@dataclass
class Taught:
    """A distiller as it trained: the student, its adapters, and what teaches it."""
    name: str
    cfg: Config
    model: Distiller


def find_runs(specs: Sequence[str], names: Sequence[str] | None, data_root: str | None) -> list[Run]:
    """The runs that are named, each by another name.

    Raises:
        CompareError: no such run, or names that are not one for each run.
    """
    if names and len(names) != len(specs):
        raise CompareError(f'--names: {len(names)} names for {len(specs)} runs')
    return [find_run(spec, names[i] if names else None, data_root) for i, spec in enumerate(specs)]


def deployed(run: Run, device: torch.device) -> Subject:
    """The detector that a run gives away."""
    state, _ = read_state_dict(run.checkpoint)
    return Subject(run.name, run.cfg, build_detector(run.cfg, state, run.checkpoint).to(device))


def is_taught(run: Run) -> bool:
    return distilled(run.cfg.model) is not None


def taught(run: Run, device: torch.device) -> Taught:
    """The distiller of a run, with its adapters and its teacher.

    Raises:
        CompareError: the checkpoint holds no adapters though the run has some: it was exported, or is the plain
            student's.
        ConfigError, CheckpointMismatch: the teacher's checkpoint is not there, or is another network's.
    """
    init_default_scope(run.cfg.get('default_scope') or 'mmdet')
    model = build(f'{run.name}: model', run.cfg.model, MODELS)
    state, _ = read_state_dict(run.checkpoint)
    load_whole(model, state, f'checkpoint {run.checkpoint!r}')
    kept = CheckpointLoader.load_checkpoint(run.checkpoint, map_location='cpu', logger='silent').get('kd_det')
    if kept is not None:
        model.load_distill_state(kept)
    elif model.distill_state() != dict(terms={}):
        raise CompareError(f'{run.checkpoint}: it has no "kd_det" entry, so no adapters (or no second network); name '
                           'the checkpoint that the training wrote')
    for source in model.sources.values():
        source.load()
    return Taught(run.name, run.cfg, model.eval().to(device))


def teachers_of(found: Taught) -> list[Subject]:
    """The frozen teachers of a distiller, each with its own config's way to prepare images where there is one."""
    subjects = []
    for name, source in found.model.sources.items():
        if isinstance(source, FrozenTeacher):
            cfg = load_config(source.name) if source.name.endswith('.py') else found.cfg
            subjects.append(Subject(name, cfg if cfg.get('test_dataloader') else found.cfg, source.model))
    return subjects
