"""How long stages take: a few steps of each network, measured now, on this machine, on this data."""
import contextlib
import copy
import io
import os.path as osp
import tempfile
import time
from collections.abc import Callable

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from ..config import set_data_root
from ..detectors import Distiller
from ..errors import ConfigError
from ..files import write_whole
from .planning import Plan
from .stages import DONE, Training

WARM_UP, TIMED = 1, 2  # steps
COMPARED = 3 * (20 + 5)  # images that the comparison times


def estimate(plan: Plan, say: Callable[[str], None] = lambda text: None) -> None:
    """Fill in ``seconds`` of the stages that are not done.

    A stage takes its steps times the measured seconds of a step, reading included, and its evaluations times the
    measured seconds of an image. Weights are random and nothing is kept. As a side effect a pair that cannot take a
    step is found out before anything is trained.

    Raises:
        ConfigError: a step fails; the message says of which network and why.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path, text in plan.files.items():
            if path.startswith(plan.places('data')):
                write_whole(osp.join(folder, osp.basename(path)), text)
        for stage in plan.stages:
            if isinstance(stage, Training) and not _is_done(plan, stage):
                say(f'measuring a step of the {stage.name} ...')
                with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
                    step, image = measure(_local(plan, stage.name, folder))
                images = len(plan.prepared.parts['val'].pictures)
                stage.seconds = stage.epochs * stage.steps * step + stage.evaluations * images * image
                plan.per_image[stage.name] = image
    compare = next(stage for stage in plan.stages if stage.name == 'compare')
    if plan.per_image:
        images = len(plan.prepared.parts.get('test', plan.prepared.parts['val']).pictures)
        compare.seconds = (3 * images + COMPARED) * max(plan.per_image.values())


def _is_done(plan: Plan, stage: Training) -> bool:
    return osp.isfile(stage.config) and stage.state(overwrite=True) == DONE


def _local(plan: Plan, name: str, folder: str) -> Config:
    """The config of a stage on the copy of the data in ``folder``; a teacher is of random weights there."""
    cfg = copy.deepcopy(plan.configs[name])
    set_data_root(cfg, folder)
    source = cfg.model.get('teacher')
    if isinstance(source, dict):
        teacher = plan.configs['teacher'].model
        options = source.pop('cfg_options', None)
        if options:
            whole = Config(dict(model=copy.deepcopy(teacher)))
            whole.merge_from_dict(options)
            teacher = whole.model
        path = osp.join(folder, 'random.pth')
        with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmdet'):
            torch.save(dict(state_dict=MODELS.build(copy.deepcopy(teacher)).state_dict()), path)
        source.update(config=dict(model=teacher.to_dict()), checkpoint=path)
    return cfg


def measure(cfg: Config) -> tuple[float, float]:
    """(seconds of a training step, seconds of an evaluated image), on the device that training takes.

    Raises:
        ConfigError: the step fails.
    """
    device = get_device()
    try:
        with torch.random.fork_rng(), DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
            if isinstance(model, Distiller):
                for source in model.sources.values():
                    source.load()
            model.to(device).train()
            wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
            step = _seconds(lambda batch: model.train_step(batch, wrapper), cfg.train_dataloader, device)
            model.eval()
            with torch.no_grad():
                image = _seconds(model.test_step, cfg.val_dataloader, device)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f'{cfg.filename and osp.basename(cfg.filename)}: it cannot take a step on this data: '
                          f'{type(error).__name__}: {" ".join(str(error).split())[:500]}') from error
    return step, image


def _seconds(step: Callable[[dict], object], loader: dict, device: str) -> float:
    """Mean seconds of a step, reading the batch included."""
    dataset = DATASETS.build(copy.deepcopy(loader.dataset))
    size, total = loader.get('batch_size', 1), 0.0
    for number in range(WARM_UP + TIMED):
        begin = time.perf_counter()
        step(pseudo_collate([dataset[(number * size + i) % len(dataset)] for i in range(size)]))
        if device.startswith('cuda'):
            torch.cuda.synchronize()
        total += (time.perf_counter() - begin) * (number >= WARM_UP)
    return total / TIMED
