"""Inheriting: a student begins with parts of its teacher, where shapes agree (the FGD and MGD papers' runs)."""
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError

SHOWN = 8


class Inheritance:
    """Parts of the teacher that the student takes over before the first step, tensor by tensor of one name and shape.

    What it holds are copies of the weights as the checkpoint has them: folded batch norms and other precisions of the
    running teacher do not reach the student.

    Args:
        key (str): of the list in the config, for messages.
        parts: module paths that both detectors have, such as ``'neck'``, ``'bbox_head'``, ``'roi_head.bbox_head'``.

    Raises:
        ConfigError: no list of paths, or one twice or inside another.
    """

    def __init__(self, key: str, parts: Any) -> None:
        if not isinstance(parts, (list, tuple)) or not parts or not all(isinstance(p, str) and p for p in parts):
            raise ConfigError(f'{key}: found {parts!r}; a list of module paths is expected, [\'neck\', \'bbox_head\']')
        for i, part in enumerate(parts):
            others = [other for other in (*parts[:i], *parts[i + 1:]) if f'{part}.'.startswith(f'{other}.')]
            if others:
                raise ConfigError(f'{key}: {part!r} lies in {others[0]!r}, which is named too; name each part once')
        self.key, self.parts = key, tuple(parts)
        self._fits: dict[str, list[str]] = {}  # part -> names of tensors
        self._others: dict[str, list[str]] = {}  # part -> what the student keeps of its own, with the reason
        self._held: dict[str, Tensor] = {}

    @property
    def has_classes(self) -> bool:
        """Whether a part may hold weights of single classes, so that both must know the same ones."""
        return any(part.partition('.')[0] not in ('backbone', 'neck') for part in self.parts)

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Find out what fits; raises :class:`ConfigError` for a part that is missing or of which nothing does."""
        ours, theirs = student.state_dict(), teacher.state_dict()
        for part in self.parts:
            for name, model, state in (('student', student, ours), ('teacher', teacher, theirs)):
                if not any(tensor.startswith(f'{part}.') for tensor in state):
                    parts = [child for child, module in model.named_children() if module.state_dict()]
                    kind = getattr(model, 'student_class', type(model)).__name__
                    raise ConfigError(f'{self.key}: the {name} {kind} has no weights in {part!r}; its '
                                      f'parts are {parts}')
            mine = {k: tuple(v.shape) for k, v in ours.items() if k.startswith(f'{part}.')}
            found = {k: tuple(v.shape) for k, v in theirs.items() if k.startswith(f'{part}.')}
            self._fits[part] = [k for k in mine if found.get(k) == mine[k]]
            self._others[part] = [f'{k} (student {mine[k]}, teacher {found.get(k, "none")})' for k in mine
                                  if found.get(k) != mine[k]]
            if not any(mine[k] for k in self._fits[part]):  # counters have no shape
                raise ConfigError(f'{self.key}: nothing of {part!r} can be inherited, no tensor has the same name and '
                                  'shape in both: ' + _listed(self._others[part]))

    def hold(self, state: dict[str, Tensor]) -> None:
        """Copy what will be inherited out of the teacher's checkpoint."""
        self._held = {k: state[k].clone() for names in self._fits.values() for k in names if k in state}

    def hand_down(self, student: nn.Module) -> list[str]:
        """Give the student the weights.

        Returns:
            list[str]: what was inherited and what was not, a line per part.
        """
        own = student.state_dict()
        for name, value in self._held.items():
            own[name].copy_(value)
        lines = []
        for part, names in self._fits.items():
            given = [name for name in names if name in self._held]
            numbers, of = (sum(own[k].numel() for k in keys)
                           for keys in (given, [k for k in own if k.startswith(f'{part}.')]))
            kept = self._others[part] + [f'{name} (not in the checkpoint)' for name in names if name not in self._held]
            lines.append(f'{self.key}: {part} begins as the teacher\'s: {len(given)} of {len(given) + len(kept)} '
                         f'tensors, {numbers} of {of} numbers'
                         + (f'; the student\'s own stay: {_listed(kept)}' if kept else ''))
        return lines

    def release(self) -> None:
        """Let go of the copies."""
        self._held = {}

    def describe(self) -> str:
        """For the plan."""
        parts = ', '.join(f'{part} ({len(names)} of {len(names) + len(self._others[part])} tensors)'
                          for part, names in self._fits.items())
        return f'the student begins with the teacher\'s {parts}; resumed runs do not'


def inheritance_of(source: Any) -> Inheritance | None:
    """Of a source that hands weights down; None for every other."""
    return getattr(source, 'inheritance', None)


def inherit(student: nn.Module, sources: dict[str, Any], begins: bool) -> list[str]:
    """Hand down what the sources' configs name, before the first step; lines for the log.

    Args:
        begins: whether the run begins. One that goes on keeps what it has trained, and the copies are let go of.
    """
    lines = []
    for inheritance in filter(None, map(inheritance_of, sources.values())):
        if begins:
            lines += inheritance.hand_down(student)
        inheritance.release()
    return lines


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ', '.join(texts[:SHOWN]) + (f' and {more} more' if more > 0 else '')
