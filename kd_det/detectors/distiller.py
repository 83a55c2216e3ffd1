"""The general distiller: any MMDetection detector as the student, a list of terms, one loop for every method."""
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ..arguments import boolean
from ..build import check_arguments, checked
from ..errors import ConfigError
from ..sources import Ensemble, FrozenTeacher
from ..sources.build import Source, build_sources
from ..sources.inheriting import inheritance_of
from ..sources.layers import Captured, LayerShape
from ..terms.step import Step
from ..terms.term import Term
from ..training_only import TrainingOnly
from ..weights import load_whole
from .combined import check_student, combined, restored
from .plan import plan_of
from .term_building import build_terms
from .unlabelled import Unlabelled, logged_names
from .watch import FirstSteps


class Distiller:
    """A detector that stays what it is, and is taught.

    Called with a student's own arguments and what distillation adds, it makes an object whose class derives from the
    student's own class and from this one: ``isinstance``, ``predict``, hooks that look for a ``bbox_head`` and the keys
    of ``state_dict`` are the student's. Deleting the additions from the config gives back the student.

    Args:
        student_type (str | type): the student's own class, as it stands in its baseline's ``type``.
        teacher (dict): short for ``sources=dict(teacher=...)``; see :class:`kd_det.sources.frozen.FrozenTeacher`.
        sources (dict[str, dict]): who teaches, by the names that terms use.
        terms (list[dict]): what is taught; see :mod:`kd_det.terms`. A term of weight 0 is not computed.
        ground_truth (bool): keep the student's own losses. False: only the terms train it, as long as one of them acts.
        unlabelled (dict | None): teach on images without labels too, which the run's ``unlabelled_dataloader`` brings;
            see :class:`kd_det.detectors.unlabelled.Unlabelled`.
        **student: the student's own arguments.

    Raises:
        ConfigError: unknown keys, sources that are not there, two terms of one name, and whatever a term cannot do with
            this pair; always before the first step.

    Attributes:
        sources: name -> source.
        terms: the terms that are on.
        distill_terms: names of the losses that they add, as they are logged.
    """

    def __new__(cls, *args: Any, student_type: str | type | None = None, **kwargs: Any) -> Any:
        if not issubclass(cls, nn.Module):
            cls = combined(cls, student_type)
        return super().__new__(cls)

    def __init__(self, *args: Any, student_type: str | type | None = None, teacher: dict | None = None,
                 sources: dict | None = None, terms: list[dict] | tuple = (), ground_truth: bool = True,
                 unlabelled: dict | None = None, **student: Any) -> None:
        check_student(type(self), args, student)
        super().__init__(*args, **student)
        self.ground_truth = checked('model.ground_truth', boolean, ground_truth)
        self.unlabelled = None if unlabelled is None else Unlabelled(
            **check_arguments('model.unlabelled', unlabelled, Unlabelled, example='dict(weight=1.)'))
        self.sources = self._build_sources(teacher, sources)
        self.layer_shapes: dict[str, LayerShape] = {}
        self.terms = TrainingOnly(build_terms(self, self.term_configs(terms)))
        peers = [source.model for source in self.sources.values() if source.trains]
        if peers:
            self.peer_network = TrainingOnly(peers)
        self._watch = FirstSteps()

    # -- build ------------------------------------------------------------------------------------------------------
    def _build_sources(self, teacher: dict | None, sources: dict | None) -> dict[str, Source]:
        """Who teaches; presets add theirs."""
        return build_sources(self, teacher, sources)

    def reached(self, name: str, terms: list[Term]) -> list[Term]:
        """The terms that the source ``name`` teaches, alone or as a member of an ensemble."""
        through = {name} | {other for other, one in self.sources.items()
                            if isinstance(one, Ensemble) and name in one.members}
        return [term for term in terms if term.source in through]

    def term_configs(self, cfgs: list[dict] | tuple) -> list[tuple[str, dict]]:
        """(config key, config) of every term; presets add theirs."""
        if not isinstance(cfgs, (list, tuple)):
            raise ConfigError(f'terms: found {cfgs!r}; a list of dicts is expected, terms=[dict(type=\'Hint\', ...)]')
        return [(f'terms[{i}]', cfg) for i, cfg in enumerate(cfgs)]

    # -- names that presets and hooks use ---------------------------------------------------------------------------
    @property
    def teacher(self) -> FrozenTeacher:
        """The only frozen teacher."""
        frozen = [source for source in self.sources.values() if isinstance(source, FrozenTeacher)]
        if len(frozen) != 1:
            raise AttributeError(f'{type(self).__name__} has {len(frozen)} frozen teachers: {list(self.sources)}')
        return frozen[0]

    @property
    def peer(self) -> nn.Module:
        """The network that trains beside the student."""
        return self.peer_network[0]

    @property
    def distill_terms(self) -> list[str]:
        return [name for term in self.terms for name in logged_names(term, self.unlabelled)]

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """What the terms train, by name."""
        return dict(self.terms.named_parameters())

    # -- the module tree --------------------------------------------------------------------------------------------
    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'Distiller':
        """Device and dtype moves reach frozen teachers, which are outside the module tree."""
        super()._apply(fn, *args, **kwargs)
        for source in vars(self).get('sources', {}).values():
            if not source.trains:
                source.apply(fn, self)
        return self

    def init_weights(self) -> None:
        """The student's, as its config says; then the sources' weights are read."""
        super().init_weights()
        for name, source in self.sources.items():
            if source.trains:
                source.init_weights()
            elif self.reached(name, list(self.terms)) or inheritance_of(source) is not None:
                source.load()

    def __reduce_ex__(self, protocol: int) -> tuple:
        """Deep copies and pickles find the class by its two parents."""
        _, _, *rest = super().__reduce_ex__(protocol)
        cls = type(self)
        return (restored, (cls.preset, cls.student_class), *rest)

    # -- the step ---------------------------------------------------------------------------------------------------
    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """The student's own losses, hard terms weighed where a method says so, and one entry per distillation term.

        Args:
            batch_inputs: (N, C, H, W).
            batch_data_samples: N samples with ``gt_instances``, boxes xyxy in the padded, augmented image.

        Returns:
            dict[str, Tensor | list[Tensor]]: the plain detector's entries and those of ``distill_terms``.
        """
        factors = {term: term.schedule.factor() for term in self.terms}
        active = [term for term in self.terms if factors[term] and term.acts_on(labelled=True)]
        losses = self._labelled_losses(batch_inputs, batch_data_samples, active, factors)
        if any(factors.values()):
            self._watch.note_gradients(self)
        _forget_views(batch_data_samples)
        if self.unlabelled is not None:
            losses.update(self.unlabelled.losses(self, factors))
        return self._keep_idle(losses, factors)

    def _labelled_losses(self, batch_inputs: Tensor, batch_data_samples: list, active: list[Term],
                         factors: dict[Term, float]) -> dict:
        elsewhere = [t for t in (self.unlabelled.acting(self.terms) if self.unlabelled else []) if factors[t]]
        if not active and (self.ground_truth or not elsewhere):  # where all terms rest, training is plain
            return super().loss(batch_inputs, batch_data_samples)
        shapes = {path: self.layer_shapes[path] for term in active for path in term.layers()[0]}
        step = Step(self, batch_inputs, batch_data_samples, Captured(self, shapes))
        self.offer_sources(step, active)
        try:
            return self._taught(step, active, factors)
        finally:
            step.close()

    def _taught(self, step: Step, active: list[Term], factors: dict[Term, float]) -> dict:
        with step.listening():
            for term in active:
                term.around(step)
            losses = self._student_losses(step.inputs, step.samples)
        for term in active:
            term.adjust(step, losses, factors[term])
        for term in active:
            found = term.losses(step)
            losses.update(found if factors[term] == 1 else
                          {name: value * factors[term] if 'loss' in name else value for name, value in found.items()})
        self._watch.see(step, active)
        return losses

    def _student_losses(self, inputs: Tensor, samples: list) -> dict:
        if self.ground_truth:
            return super().loss(inputs, samples)
        self._forward(inputs, samples)
        return {}

    def offer_sources(self, step: Step, active: list[Term]) -> None:
        """Say how each source is asked about the batch of ``step``."""
        for name, source in self.sources.items():
            if isinstance(source, Ensemble):
                step.offer(name, lambda source=source: source.open(
                    {member: step.source(member) for member in source.members}))
                continue
            terms = self.reached(name, active)
            whole = any(term.reaches() == 'whole' for term in terms)

            def opener(source: Any = source, whole: bool = whole) -> Any:
                return source.open(step.inputs, step.samples, whole=whole,
                                   rois=step.rois if hasattr(self, 'roi_head') else None)
            step.offer(name, opener)

    def _keep_idle(self, losses: dict, factors: dict[Term, float]) -> dict:
        """Under DDP every parameter has to take part; those of terms that rest do so with gradient 0."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            idle = [p for term in self.terms if not (factors[term] and logged_names(term, self.unlabelled))
                    for p in term.parameters()]
            if idle:
                losses['loss_resting_terms'] = sum(p.sum() for p in idle) * 0.0
        return losses

    # -- what the hook asks -----------------------------------------------------------------------------------------
    def distill_state(self) -> dict:
        """What only training needs, for ``checkpoint['kd_det']``."""
        state = dict(terms=self.terms.own_state_dict())
        if hasattr(self, 'peer_network'):
            state['peer'] = self.peer.state_dict()
        return state

    def load_distill_state(self, state: dict) -> None:
        """Restore :meth:`distill_state`; strict."""
        wanted = set(self.distill_state())
        missing = wanted - set(state)
        if missing:
            raise ConfigError(f'--resume: the checkpoint\'s kd_det entry holds {sorted(state)}, not {sorted(missing)}: '
                              'it is of another method, or of an earlier version; to start from its weights use '
                              '--cfg-options load_from=CHECKPOINT')
        self.terms.load_own_state_dict(state['terms'])
        if 'peer' in wanted:
            load_whole(self.peer, state['peer'], 'the second network (kd_det.peer) of the checkpoint')

    def plan(self) -> list[str]:
        """What is distilled where, one line each."""
        return plan_of(self)


def _forget_views(samples: list) -> None:
    """The teacher's own views have been used, and samples travel on."""
    for sample in samples:
        sample.pop('teacher_view', None)
