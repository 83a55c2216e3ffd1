"""What every distiller has: a frozen teacher, hints, a plan, and a state_dict that stays the student's."""
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..hints import HINT_KEYS, Hint, flatten_levels
from ..tap import tap_layer
from ..teacher import FrozenTeacher
from ..training_only import TrainingOnly

PROBE_SIDE = 256  # pixels of the test image that finds the shapes of hint layers; P7 is 2x2 there


class DistillerMixin:
    """Adds a teacher and hints to an MMDetection detector, which stays what it is.

    A subclass lists itself before the detector class, calls :meth:`init_distillation` at the end of ``__init__``,
    extends ``loss`` and names the terms it adds in ``distill_terms``. ``predict`` is inherited untouched.

    Attributes:
        distill_keys: constructor arguments that distillation adds; without them the config is the student's.
        deployed_type: the plain detector that the student is.
        distill_terms: names of the loss terms that distillation adds, as they are logged.
    """

    distill_keys: tuple[str, ...] = ('teacher', 'hints')
    deployed_type: str
    teacher: FrozenTeacher

    def init_distillation(self, teacher: dict, hints: list[dict] | tuple = ()) -> None:
        """Build the teacher and the hints. No random number of the student's is drawn by it."""
        self.teacher = FrozenTeacher.build(teacher, self.data_preprocessor)
        self.teacher.belongs_to(self)
        self.distill_terms: list[str] = []
        self.adapters = TrainingOnly(self._build_hints(hints))
        self.distill_terms += [self._hint_name(i) for i in range(len(self.adapters))]

    # -- hints ------------------------------------------------------------------------------------------------------
    def _build_hints(self, hints: list[dict] | tuple) -> list[Hint]:
        if isinstance(hints, dict):
            raise ConfigError(f'hints: found {hints}; a list of dicts is expected, hints=[dict(layer=...)]')
        active = []
        for i, cfg in enumerate(hints or ()):
            unknown = set(cfg) - HINT_KEYS
            if unknown or 'layer' not in cfg:
                raise ConfigError(f'hints[{i}]: unknown keys {sorted(unknown)}, found {sorted(cfg)}; layer is needed, '
                                  f'{sorted(HINT_KEYS)} are known')
            if (cfg.get('loss') or {}).get('loss_weight', 1) != 0:  # a term of weight 0 is not computed
                active.append((f'hints[{i}]', dict(cfg)))
        if not active:
            return []
        scale = self.teacher.scale_factor
        seen_student: dict[str, list] = {cfg['layer']: [] for _, cfg in active}
        seen_teacher: dict[str, list] = {cfg.get('teacher_layer') or cfg['layer']: [] for _, cfg in active}
        device = next(self.parameters()).device
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _eval_mode(self), ExitStack() as taps:
            for key, cfg in active:
                self._check_layer(f'{key}.layer', self, cfg['layer'])
                self._check_layer(f'{key}.teacher_layer', self.teacher.model, cfg.get('teacher_layer') or cfg['layer'])
                if (cfg.get('teacher_layer') or cfg['layer']) in self.teacher.fused:
                    raise ConfigError(f'{key}: the teacher\'s {cfg.get("teacher_layer") or cfg["layer"]!r} was folded with '
                                      'the batch norm behind it (teacher.fuse_conv_bn), so it no longer gives what the '
                                      'student\'s gives; name the layer behind, or leave fuse_conv_bn out')
            _tap_all(taps, self, seen_student)
            _tap_all(taps, self.teacher.model, seen_teacher)
            self._probe(torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE, device=device),
                        torch.zeros(1, 3, PROBE_SIDE * scale, PROBE_SIDE * scale, device=device))
        built = []
        for key, cfg in active:
            student = flatten_levels(seen_student[cfg['layer']])
            teacher = flatten_levels(seen_teacher[cfg.get('teacher_layer') or cfg['layer']])
            for name, found in ((cfg['layer'], student), (cfg.get('teacher_layer') or cfg['layer'], teacher)):
                if not found or not all(isinstance(f, Tensor) and f.dim() in (2, 4) for f in found):
                    raise ConfigError(f'{key}: layer {name!r} gives {[getattr(f, "shape", type(f)) for f in found]}; '
                                      'feature maps (N, C, H, W) or vectors (N, C) are expected')
            built.append(Hint(student_shapes=[tuple(f.shape) for f in student],
                              teacher_shapes=[tuple(f.shape) for f in teacher],
                              scale_factor=scale, key=key, **cfg))
        return built

    @staticmethod
    def _check_layer(key: str, model: nn.Module, path: str) -> None:
        try:
            model.get_submodule(path)
        except AttributeError:
            known = [name for name, _ in model.named_modules() if name and name.count('.') <= 1]
            raise ConfigError(f'{key}: {type(model).__name__} has no layer {path!r}; it has {known}') from None

    def _probe(self, student_image: Tensor, teacher_image: Tensor) -> None:
        """Run both networks as far as hint layers reach, as a training step does."""
        raise NotImplementedError

    def _hint_name(self, index: int) -> str:
        layers = [hint.layer for hint in self.adapters]
        name = 'loss_hint_' + layers[index].replace('.', '_')
        return name if layers.count(layers[index]) == 1 else f'{name}_{layers[:index].count(layers[index])}'

    @contextmanager
    def tap_hints(self, model: nn.Module, side: str):
        """Collect the outputs of the hint layers of ``model`` (``side`` 'layer' or 'teacher_layer') in the block."""
        outputs: dict[str, list] = {getattr(hint, side): [] for hint in self.adapters}
        with ExitStack() as taps:
            _tap_all(taps, model, outputs)
            yield outputs

    def hint_losses(self, student: dict[str, list], teacher: dict[str, list]) -> dict[str, Tensor]:
        """Every hint's term under its name, from what :meth:`tap_hints` collected."""
        return {self._hint_name(i): hint(flatten_levels(student[hint.layer]),
                                         flatten_levels(teacher[hint.teacher_layer]))
                for i, hint in enumerate(self.adapters)}

    def hints_below(self, part: str) -> bool:
        """Whether a hint needs the teacher's ``part`` ('rpn_head', 'roi_head', 'bbox_head') to run."""
        return any(hint.teacher_layer.split('.')[0] == part for hint in self.adapters)

    # -- the module tree --------------------------------------------------------------------------------------------
    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'DistillerMixin':
        """Device and dtype moves reach the teacher, which is outside the module tree."""
        super()._apply(fn, *args, **kwargs)
        if 'teacher' in vars(self):
            self.teacher.apply(fn, self)
        return self

    # -- what the hook asks -----------------------------------------------------------------------------------------
    def distill_state(self) -> dict:
        """What only training needs, for ``checkpoint['kd_det']``."""
        return dict(adapters=self.adapters.own_state_dict())

    def load_distill_state(self, state: dict) -> None:
        """Restore :meth:`distill_state`; strict."""
        self.adapters.load_own_state_dict(state['adapters'])

    def uses_class_names(self) -> bool:
        """Whether a term compares classes one by one, so that both networks must know the same ones."""
        return True

    def plan(self) -> list[str]:
        """What is distilled where, one line each."""
        teacher = self.teacher
        lines = [f'student {type(self).__name__} ({sum(p.numel() for p in self.parameters()) / 1e6:.2f} M parameters, '
                 f'adapters {sum(p.numel() for p in self.adapters.parameters()) / 1e6:.3f} M of them)',
                 f'teacher {type(teacher.model).__name__} '
                 f'({sum(p.numel() for p in teacher.model.parameters()) / 1e6:.2f} M parameters), {teacher.name}, '
                 f'weights {teacher.checkpoint}']
        if teacher.scale_factor != 1:
            lines.append(f'teacher sees each image at {teacher.scale_factor} times the student\'s resolution')
        if teacher._renormalise is not None and teacher.scale_factor == 1:
            lines.append('inputs are re-normalised for the teacher (its mean, std or channel order differ)')
        for hint in self.adapters:
            lines += hint.describe()
        return lines


def _tap_all(taps: ExitStack, model: nn.Module, outputs: dict[str, list]) -> None:
    for path, found in outputs.items():
        taps.enter_context(tap_layer(model.get_submodule(path), found))


@contextmanager
def _eval_mode(model: nn.Module):
    """Eval mode for the block; each module's own mode afterwards (frozen stages are in eval mode within training)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
