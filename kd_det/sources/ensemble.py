"""Several teachers that answer as one."""
import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from ..build import check_arguments
from ..errors import ConfigError
from .ensemble_pass import EnsemblePass
from .frozen import FrozenTeacher
from .layers import LayerShape
from .passes import Pass


class Member:
    """One teacher of an ensemble: the teacher, how much it counts, and which classes it knows.

    Args:
        teacher: the source.
        weight (float | list[float]): of all its classes, or one for each of the STUDENT's classes.
        classes (list[int] | None): for each class of the teacher, in its order, the index of the same class in the
            student's list. None: the same list.
        key (str): for messages.
    """

    def __init__(self, teacher: FrozenTeacher, weight: float | list[float] = 1.0, classes: list[int] | None = None,
                 key: str = 'members') -> None:
        weights = weight if isinstance(weight, (list, tuple)) else [weight]
        if not weights or any(isinstance(w, bool) or not isinstance(w, (int, float)) or not 0 <= w < math.inf
                              for w in weights):
            raise ConfigError(f'{key}.weight: found {weight!r}; a number of at least 0 is expected, or a list with one '
                              'for each of the student\'s classes')
        if classes is not None and (not isinstance(classes, (list, tuple)) or not classes or any(
                isinstance(c, bool) or not isinstance(c, int) or c < 0 for c in classes)
                or len(set(classes)) != len(classes)):
            raise ConfigError(f'{key}.classes: found {classes!r}; for each class of the teacher the index of the same '
                              'class in the student\'s list is expected, such as [0, 2]')
        self.teacher, self.key = teacher, key
        self.weight = weight
        self.class_map = None if classes is None else list(classes)

    @property
    def off(self) -> bool:
        """Of weight 0: never run, never loaded."""
        return not any(self.weight) if isinstance(self.weight, (list, tuple)) else self.weight == 0

    def weights(self, num_classes: int) -> list[float]:
        """For each of the student's classes; 0 where the teacher does not know it."""
        weights = list(self.weight) if isinstance(self.weight, (list, tuple)) else [self.weight] * num_classes
        if len(weights) != num_classes:
            raise ConfigError(f'{self.key}.weight: {len(weights)} weights for the student\'s {num_classes} classes')
        if self.class_map is None:
            return weights
        if max(self.class_map) >= num_classes:
            raise ConfigError(f'{self.key}.classes: found {self.class_map}; the student has {num_classes} classes, '
                              f'0 to {num_classes - 1}')
        return [w if c in self.class_map else 0.0 for c, w in enumerate(weights)]

    # what terms look at when they examine a source
    @property
    def model(self) -> nn.Module:
        return self.teacher.model

    @property
    def scale_factor(self) -> int:
        return self.teacher.scale_factor

    @property
    def shapes(self) -> dict[str, LayerShape]:
        return self.teacher.shapes

    @property
    def rpn_levels(self) -> list[int] | None:
        return self.teacher.rpn_levels

    @rpn_levels.setter
    def rpn_levels(self, levels: list[int]) -> None:
        self.teacher.rpn_levels = levels


class Ensemble:
    """A source whose answer is the mean of others'::

        sources=dict(a=dict(config=..., checkpoint=...), b=dict(config=..., checkpoint=...),
                     both=dict(type='Ensemble', members=dict(a=dict(weight=2.), b=dict(weight=[1., 1., 0.5]))))

    Class scores are averaged as probabilities (:mod:`kd_det.sources.mixture`), boxes as encoded boxes of one coder or
    as decoded boxes, layers are concatenated along their channels (CBD's several teachers).

    A teacher that knows other classes than the student says so by ``classes``: it speaks about these only. Classes that
    no member knows are left out of whatever compares classes.

    Args:
        members (list[str] | dict[str, dict]): names of frozen sources; a dict may give ``weight`` and ``classes``
            (:class:`Member`). A member of weight 0 is never run.
        confidence (float | None): tau of the weights per object
            (:func:`kd_det.sources.mixture.confidence_weights`), times those of the members; None: the latter alone.
        weights (str | dict | None): 'ap': the members' weights are multiplied, class by class, with their AP on the
            evaluation set, which is measured before training
            (:class:`kd_det.engine.ensemble_weights_hook.EnsembleWeightsHook`); dict(ap=ANN_FILE): on these annotations,
            read as the evaluation set is.
        sources: those that are there, by name; filled in.
        key (str): for messages.

    Raises:
        ConfigError: values that cannot be meant; members that answer in ways that cannot be averaged.

    Source: Hinton et al. 2015 (mean); MulDE, arXiv 2010.07152 (weights); BAM, arXiv 1907.04829 (several tasks).
    """

    trains = False

    def __init__(self, members: list[str] | dict[str, dict], confidence: float | None = None,
                 weights: str | dict | None = None, sources: dict[str, Any] | None = None,
                 key: str = 'sources.ensemble') -> None:
        if isinstance(members, (list, tuple)):
            if len(set(members)) != len(members):
                raise ConfigError(f'{key}.members: found {members!r}; each source once')
            members = {name: {} for name in members}
        if not isinstance(members, dict) or not members:
            raise ConfigError(f'{key}.members: found {members!r}; names of sources are expected, [\'a\', \'b\'], or '
                              'dict(a=dict(weight=1.), ...)')
        if confidence is not None and (isinstance(confidence, bool) or not isinstance(confidence, (int, float))
                                       or not 0 < confidence < math.inf):
            raise ConfigError(f'{key}.confidence: found {confidence!r}; a temperature above 0 is expected, or None')
        named = isinstance(weights, dict) and set(weights) == {'ap'} and isinstance(weights['ap'], str)
        if weights not in (None, 'ap') and not named:
            raise ConfigError(f'{key}.weights: found {weights!r}; \'ap\' is expected, '
                              'dict(ap=\'annotations/dev.json\'), or None (numbers are given with the members, '
                              'members=dict(a=dict(weight=2.), ...))')
        self.key, self.confidence = key, confidence
        self.weighs_by_ap, self.ap_on = weights is not None, weights['ap'] if named else None
        self.members: dict[str, Member] = {}
        for name, cfg in members.items():
            source = (sources or {}).get(name)
            if not isinstance(source, FrozenTeacher):
                known = [n for n, one in (sources or {}).items() if isinstance(one, FrozenTeacher)]
                raise ConfigError(f'{key}.members: {name!r} is no frozen teacher of sources; there are {known}')
            where = f'{key}.members.{name}'
            arguments = check_arguments(where, {} if cfg is None else cfg, Member, ('teacher', 'key'))
            member = Member(source, **arguments, key=where)
            if not member.off:
                self.members[name] = member
        if not self.members:
            raise ConfigError(f'{key}.members: every weight is 0; leave the terms out instead')
        if len({member.scale_factor for member in self.members.values()}) > 1:
            raise ConfigError(f'{key}.members: they see images at different resolutions (scale_factor); one is needed')
        self.shapes: dict[str, LayerShape] = {}
        self._weights: Tensor | None = None
        self._configured: Tensor | None = None
        self.loaded = False

    # -- before training --------------------------------------------------------------------------------------------
    @property
    def lead(self) -> Member:
        """The first member: where answers are averaged, all are of its kind."""
        return next(iter(self.members.values()))

    @property
    def model(self) -> nn.Module:
        return self.lead.model

    @property
    def scale_factor(self) -> int:
        return self.lead.scale_factor

    def set_classes(self, num_classes: int | None) -> None:
        """Weights per class, for a student of so many; None: its classes take no part."""
        if num_classes is None:
            return
        self._weights = torch.tensor([member.weights(num_classes) for member in self.members.values()])  # (M, C)
        self._configured = self._weights
        if not self._weights.any():
            raise ConfigError(f'{self.key}.members: no member has a weight for a class that it knows')

    def set_ap(self, figures: dict[str, list[float | None]]) -> Tensor:
        """Weigh the members by how good they are at each class::

            w_m(c) = configured weight of m for c * AP of m for c

        A class in which no member has an AP above 0 keeps the configured weights.

        Args:
            figures: for each member the AP of each of the student's classes, in [0, 1]; None: not known.

        Returns:
            (M, C), each class adding up to 1 over the members that know it: the shares.
        """
        ap = torch.tensor([[value or 0.0 for value in figures[name]] for name in self.members])  # (M, C)
        weighed = self._configured * ap.clamp(min=0)
        self._weights = torch.where(weighed.sum(0) > 0, weighed, self._configured)
        return self._weights / self._weights.sum(0).clamp(min=1e-12)

    @property
    def known(self) -> Tensor | None:
        """(C,) bool, the classes that somebody speaks about; None: all."""
        if self._configured is None or bool((self._configured > 0).any(0).all()):
            return None
        return (self._configured > 0).any(0)

    @property
    def partial(self) -> bool:
        """Whether a member does not know all classes."""
        return any(member.class_map is not None for member in self.members.values())

    def probe(self, paths: Collection[str]) -> None:
        """Shapes of the members' layers, concatenated; the members were probed before.

        Raises:
            ConfigError: maps of different sizes or numbers of levels.
        """
        for path in paths:
            found = [member.shapes[path].levels for member in self.members.values()]
            if len({tuple((*shape[:1], *shape[2:]) if len(shape) == 4 else shape[:-1] for shape in levels)
                    for levels in found}) > 1:
                raise ConfigError(f'{self.key}.members: layer {path!r} gives {found}; maps of equal sizes are '
                                  'concatenated, so name layers that agree, or a term for each teacher')
            levels = []
            for shapes in zip(*found):
                axis = 1 if len(shapes[0]) == 4 else -1
                merged = list(shapes[0])
                merged[axis] = sum(shape[axis] for shape in shapes)
                levels.append(tuple(merged))
            self.shapes[path] = LayerShape(levels)

    def load(self) -> None:
        """Read the members' weights."""
        for member in self.members.values():
            member.teacher.load()
        self.loaded = True

    def apply(self, fn: Any, detector: nn.Module) -> None:
        """Moves reach the members, which are sources of their own."""

    # -- the step ---------------------------------------------------------------------------------------------------
    def open(self, passes: dict[str, Pass]) -> EnsemblePass | Pass:
        """What all say; a single member's own answer where that is all there is to it."""
        if len(self.members) == 1 and not self.partial and self.known is None:
            return next(iter(passes.values()))
        return EnsemblePass(list(passes.values()), [member.class_map for member in self.members.values()],
                            self._weights, self.known, self.confidence)

    def describe(self) -> list[str]:
        """Lines of the plan."""
        lines = [f'{self.key}: the mean of {", ".join(self.members)}'
                 + ('' if self.confidence is None else f', weighted object by object by confidence (tau '
                                                       f'{self.confidence:g})')
                 + (', weighted class by class by their AP on the evaluation set' if self.weighs_by_ap else '')]
        for name, member in self.members.items():
            lines.append(f'    {name}: weight {member.weight}'
                         + ('' if member.class_map is None
                            else f', knows the student\'s classes {member.class_map} only'))
        if self.known is not None:
            lines.append(f'    nobody knows the student\'s classes {(~self.known).nonzero().flatten().tolist()}; '
                         'nothing is said about them')
        return lines
