"""What a distilled run needs from the runner: checks before training, adapters in checkpoints, watching the terms."""
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from ..datasets import TwoViewDataset
from ..detectors import Distiller
from ..detectors.unlabelled import logged_names
from ..errors import ConfigError
from ..sources import Ensemble
from ..sources.inheriting import inherit, inheritance_of
from ..training_only import TrainingOnly
from .term_watch import TermWatch


class DistillHook(Hook):
    """Every runner whose model is a distiller gets one by itself (:func:`attach_to_runner`).

    - Before training: the plan is logged; class names of teacher and student must agree; adapters must be in the
      optimizer and the teacher must not.
    - In checkpoints: what only training needs goes to ``checkpoint['kd_det']`` and comes back on resume.
    - While training: what :class:`kd_det.engine.term_watch.TermWatch` says of the terms.

    Args:
        patience (int): steps.
    """

    priority = 'VERY_LOW'

    def __init__(self, patience: int = 50) -> None:
        self._watch = TermWatch(patience)
        self._resumed = False

    def before_train(self, runner: Runner) -> None:
        model = distiller_of(runner)
        # after weights were drawn or loaded (load_from), unless they are those of a run that goes on
        for line in inherit(model, model.sources, begins=not self._resumed):
            runner.logger.info(line)
        runner.logger.info('Distillation plan:\n  ' + '\n  '.join(model.plan()))
        self._check_classes(model, runner)
        self._check_optimizer(model, runner)
        self._check_schedules(model, runner)
        self._check_views(model, runner)
        synchronise(model)

    def _check_classes(self, model: Distiller, runner: Runner) -> None:
        names = runner.train_dataloader.dataset.metainfo.get('classes')
        for name, source in model.sources.items():
            inheritance = inheritance_of(source)
            compared = any(term.compares_classes for term in model.terms if term.source == name)
            if not compared and not (inheritance and inheritance.has_classes):
                continue
            if isinstance(source, Ensemble):
                for member in source.members.values():
                    self._check_names(member.teacher, names if member.class_map is None
                                      else [names[i] for i in member.class_map], runner)
            else:
                self._check_names(source, names, runner)

    @staticmethod
    def _check_names(source: Any, names: Any, runner: Runner) -> None:
        if source.classes is None:
            if source.checkpoint:
                runner.logger.warning(f'{source.key}.checkpoint {source.checkpoint} names no classes; whether its '
                                      f'classes are {names}, in this order, could not be checked')
        elif tuple(source.classes) != tuple(names):
            raise ConfigError(f'{source.key}.checkpoint {source.checkpoint} was trained on the classes '
                              f'{tuple(source.classes)}, the student\'s data set has {tuple(names)}; names and order '
                              'must agree')

    @staticmethod
    def _check_optimizer(model: Distiller, runner: Runner) -> None:
        trained = trained_parameters(runner)
        lost = [name for name, p in model.adapter_parameters().items() if p.requires_grad and id(p) not in trained]
        if lost:
            raise ConfigError(f'optim_wrapper: the optimizer does not hold the adapters {lost}; they would never train')
        resting = parameters_without_rate(runner)
        still = [name for name, p in model.adapter_parameters().items() if p.requires_grad and id(p) in resting]
        if still:
            raise ConfigError(f'optim_wrapper.paramwise_cfg: the adapters {still} have a learning rate of 0 '
                              '(lr_mult=0); they would never train')
        for source in model.sources.values():
            if isinstance(source, Ensemble):
                continue
            if source.trains and {id(p) for p in source.model.parameters() if p.requires_grad} <= resting:
                raise ConfigError(f'optim_wrapper.paramwise_cfg: all of the {source.key} has a learning rate of 0 '
                                  '(lr_mult=0); it would never train')
            inside = [name for name, p in source.model.named_parameters() if id(p) in trained]
            outside = [name for name, p in source.model.named_parameters() if p.requires_grad and id(p) not in trained]
            if inside and not source.trains:
                raise ConfigError(f'optim_wrapper: the optimizer holds parameters of the {source.key}, which is frozen')
            if outside and source.trains:
                raise ConfigError(f'optim_wrapper: the optimizer does not hold {len(outside)} parameters of the '
                                  f'{source.key}, e.g. {outside[:3]}; they would never train')

    @staticmethod
    def _check_views(model: Distiller, runner: Runner) -> None:
        dataset = runner.train_dataloader.dataset
        scales = sorted({source.scale_factor for source in model.sources.values()})
        if isinstance(dataset, TwoViewDataset) and dataset.scale_factor not in scales:
            raise ConfigError(f'train_dataloader.dataset: TwoViewDataset of scale_factor {dataset.scale_factor}, which '
                              f'no teacher looks at (their scale_factor: {scales}); set teacher.scale_factor='
                              f'{dataset.scale_factor}, or use the inner data set alone')

    @staticmethod
    def _check_schedules(model: Distiller, runner: Runner) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            for term in model.terms:
                if term.schedule.start >= runner.max_epochs:
                    raise ConfigError(f'{term.key}.start_epoch: found {term.schedule.start}, and the run ends '
                                      f'with epoch {runner.max_epochs} (train_cfg.max_epochs); the term would never '
                                      'act')
            return
        for term in model.terms:
            if not term.schedule.is_constant:
                raise ConfigError(f'{term.key}: {term.schedule.describe()}, and this run counts iterations '
                                  f'({type(runner.train_loop).__name__}); use an epoch-based train_cfg')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['kd_det'] = on_cpu(distiller_of(runner).distill_state())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        self._resumed = True
        if 'kd_det' not in checkpoint:
            raise ConfigError(f'--resume: {runner._load_from or "the latest checkpoint"} is of a run without '
                              'distillation (it has no "kd_det" entry); to start from its weights use '
                              '--cfg-options load_from=CHECKPOINT')
        self._restore(runner, checkpoint['kd_det'])

    def _restore(self, runner: Runner, state: dict) -> None:
        distiller_of(runner).load_distill_state(state)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        model = distiller_of(runner)
        resting = {name for term in model.terms if not term.schedule.factor()
                   for name in logged_names(term, model.unlabelled)}
        names = [name for name in model.distill_terms if name not in resting]
        self._watch.see(runner, names, outputs or {})


def synchronise(model: Distiller) -> None:
    """Rank 0's adapters and second network on all ranks."""
    for module in model.modules():
        if isinstance(module, TrainingOnly):
            module.synchronise()


def distiller_of(runner: Runner) -> Distiller:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def trained_parameters(runner: Runner) -> set[int]:
    """``id`` of every parameter that an optimizer of the run holds."""
    wrapper = runner.optim_wrapper
    optimizers = [w.optimizer for _, w in wrapper.items()] if hasattr(wrapper, 'items') else [wrapper.optimizer]
    return {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group['params']}


def parameters_without_rate(runner: Runner) -> set[int]:
    """``id`` of every parameter whose learning rate, apart from warm-up and decay, is 0."""
    wrapper = runner.optim_wrapper
    optimizers = [w.optimizer for _, w in wrapper.items()] if hasattr(wrapper, 'items') else [wrapper.optimizer]
    return {id(p) for optimizer in optimizers for group in optimizer.param_groups
            if group.get('initial_lr', group['lr']) == 0 for p in group['params']}


def on_cpu(state: Any) -> Any:
    """The same nested dicts, every tensor on the CPU: a checkpoint must load where there is no such device."""
    if isinstance(state, Tensor):
        return state.detach().cpu()
    return type(state)((key, on_cpu(value)) for key, value in state.items()) if isinstance(state, dict) else state
