"""What a distilled run needs from the runner: checks before training, adapters in checkpoints, watching the terms."""
import functools
import math

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from ..detectors.distiller import DistillerMixin
from ..errors import ConfigError
from ..training_only import TrainingOnly


class DistillHook(Hook):
    """Every runner whose model is a distiller gets one by itself (:func:`attach_to_runner`).

    - Before training: the plan is logged; class names of teacher and student must agree; adapters must be in the
      optimizer and the teacher must not.
    - In checkpoints: what only training needs goes to ``checkpoint['kd_det']`` and comes back on resume.
    - While training: a distillation term that is missing, exactly zero for ``patience`` steps in a row, or not finite
      is reported by name, once per occurrence.

    Args:
        patience (int): steps.
    """

    priority = 'VERY_LOW'

    def __init__(self, patience: int = 50) -> None:
        self.patience = patience
        self._silent_steps: dict[str, int] = {}
        self._not_finite: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        model = _distiller(runner)
        runner.logger.info('Distillation plan:\n  ' + '\n  '.join(model.plan()))
        self._check_classes(model, runner)
        self._check_optimizer(model, runner)
        for module in model.modules():
            if isinstance(module, TrainingOnly):
                module.synchronise()

    @staticmethod
    def _check_classes(model: DistillerMixin, runner: Runner) -> None:
        taught, names = model.teacher.classes, runner.train_dataloader.dataset.metainfo.get('classes')
        if not model.uses_class_names():
            return
        if taught is None:
            runner.logger.warning(f'teacher.checkpoint {model.teacher.checkpoint} names no classes; whether its classes '
                                  f'are {names}, in this order, could not be checked')
        elif tuple(taught) != tuple(names):
            raise ConfigError(f'teacher.checkpoint {model.teacher.checkpoint} was trained on the classes {tuple(taught)}, '
                              f'the student\'s data set has {tuple(names)}; names and order must agree')

    @staticmethod
    def _check_optimizer(model: DistillerMixin, runner: Runner) -> None:
        trained = _trained_parameters(runner)
        lost = [name for name, p in model.adapters.named_parameters() if id(p) not in trained]
        if lost:
            raise ConfigError(f'optim_wrapper: the optimizer does not hold the adapters {lost}; they would never train')
        if any(id(p) in trained for p in model.teacher.model.parameters()):
            raise ConfigError('optim_wrapper: the optimizer holds parameters of the teacher, which is frozen')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['kd_det'] = _distiller(runner).distill_state()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        if 'kd_det' not in checkpoint:
            raise ConfigError(f'--resume: {runner._load_from or "the latest checkpoint"} is of a run without '
                              'distillation (it has no "kd_det" entry); to start from its weights use '
                              '--cfg-options load_from=CHECKPOINT')
        self._restore(runner, checkpoint['kd_det'])

    def _restore(self, runner: Runner, state: dict) -> None:
        _distiller(runner).load_distill_state(state)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        for name in _distiller(runner).distill_terms:
            value = (outputs or {}).get(name)
            if isinstance(value, Tensor):
                value = value.item()  # under DDP it is still part of the graph
            if value is not None and not math.isfinite(value):
                if name not in self._not_finite:
                    runner.logger.error(f'distillation term {name} is {value} at iteration {runner.iter + 1}')
                self._not_finite.add(name)
                continue
            self._not_finite.discard(name)
            self._silent_steps[name] = 0 if value else self._silent_steps.get(name, 0) + 1
            if self._silent_steps[name] == self.patience:
                what = 'missing from the losses' if value is None else 'exactly zero'
                runner.logger.warning(f'distillation term {name} has been {what} for {self.patience} steps, up to '
                                      f'iteration {runner.iter + 1}: it teaches nothing')


def _distiller(runner: Runner) -> DistillerMixin:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _trained_parameters(runner: Runner) -> set[int]:
    """``id`` of every parameter that an optimizer of the run holds."""
    wrapper = runner.optim_wrapper
    optimizers = [w.optimizer for _, w in wrapper.items()] if hasattr(wrapper, 'items') else [wrapper.optimizer]
    return {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group['params']}


def _hooks_of(model: object) -> tuple[type[Hook], ...]:
    from ..detectors.colad import CoLAD
    from .colad_hook import CoLADHook
    from .peer_validation_hook import PeerValidationHook
    if isinstance(model, CoLAD):
        return CoLADHook, PeerValidationHook
    return (DistillHook,) if isinstance(model, DistillerMixin) else ()


def attach_to_runner() -> None:
    """Give every Runner of a distiller its :class:`DistillHook`, or CoLAD's hooks; idempotent.

    A config cannot forget it this way, and MMDetection's own ``tools/train.py`` has it too. The runner's
    ``register_hooks`` is wrapped because MMEngine has no place where a model can ask for a hook.
    """
    original = Runner.register_hooks
    if getattr(original, 'attaches_distill_hook', False):
        return

    @functools.wraps(original)
    def register_hooks(self: Runner, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        for kind in _hooks_of(_distiller(self)):
            if not any(isinstance(hook, kind) for hook in self.hooks):
                self.register_hook(kind())

    register_hooks.attaches_distill_hook = True
    Runner.register_hooks = register_hooks
