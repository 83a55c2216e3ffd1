"""Sources from a config: who teaches, by name."""
from typing import Any

from torch import nn

from ..build import check_arguments
from ..errors import ConfigError
from .ensemble import Ensemble
from .frozen import FrozenTeacher
from .layers import box_heads
from .peer import Peer
from .recorded import RecordedTeacher

Source = FrozenTeacher | Peer | Ensemble
KINDS = {'FrozenTeacher': FrozenTeacher, 'RecordedTeacher': RecordedTeacher, 'Peer': Peer}


def build_sources(student: nn.Module, teacher: dict | None, sources: dict | None) -> dict[str, Source]:
    """Every source of a distiller; ensembles, which name the others, are built after them.

    Raises:
        ConfigError: unknown kinds and keys, a name given twice, whatever a source refuses.
    """
    if sources is not None and not isinstance(sources, dict):
        raise ConfigError(f'sources: found {sources!r}; a dict of sources by name is expected, '
                          'sources=dict(a=dict(config=..., checkpoint=...), ...)')
    if teacher is not None and 'teacher' in (sources or {}):
        raise ConfigError('teacher: sources has a \'teacher\' too; name one of them otherwise')
    found = {} if teacher is None else {'teacher': (teacher, 'teacher')}
    found.update({name: (cfg, f'sources.{name}') for name, cfg in (sources or {}).items()})
    several = [name for name, (cfg, _) in found.items() if isinstance(cfg, dict) and cfg.get('type') == 'Ensemble']
    built: dict[str, Source] = {name: build_network(student, key, cfg) for name, (cfg, key) in found.items()
                                if name not in several}
    for name in several:
        cfg, key = found[name]
        built[name] = build_ensemble(student, key, {k: v for k, v in cfg.items() if k != 'type'}, built)
    _check_inheritances([source for source in built.values() if isinstance(source, FrozenTeacher)])
    return {name: built[name] for name in found}


def _check_inheritances(teachers: list[FrozenTeacher]) -> None:
    """A part comes from one teacher."""
    taken: dict[str, str] = {}
    for inheritance in [teacher.inheritance for teacher in teachers if teacher.inheritance is not None]:
        for part in inheritance.parts:
            twice = [other for other in taken if f'{part}.'.startswith(f'{other}.')
                     or f'{other}.'.startswith(f'{part}.')]
            if twice:
                raise ConfigError(f'{inheritance.key}: {part!r} is inherited by {taken[twice[0]]} already')
            taken[part] = inheritance.key


def build_ensemble(student: nn.Module, key: str, cfg: dict, built: dict[str, Source]) -> Ensemble:
    """An ensemble of frozen teachers among ``built``, for the classes of ``student``."""
    arguments = check_arguments(key, cfg, Ensemble, ('sources', 'key'), 'dict(type=\'Ensemble\', members=[...])')
    ensemble = Ensemble(**arguments, sources=built, key=key)
    head = box_heads(student)[0] if hasattr(student, 'roi_head') else getattr(student, 'bbox_head', None)
    ensemble.set_classes(getattr(head, 'num_classes', None))
    return ensemble


def build_network(student: nn.Module, key: str, cfg: Any) -> FrozenTeacher | Peer:
    """A source with a network of its own, from its config; ``key`` is where that stands."""
    cfg = dict(cfg) if isinstance(cfg, dict) else cfg
    kind = 'FrozenTeacher'
    if isinstance(cfg, dict):
        kind = cfg.pop('type', 'RecordedTeacher' if cfg.get('record') is not None else kind)
        if kind == 'FrozenTeacher':
            cfg.pop('record', None)  # None: not recorded
    if kind not in KINDS:
        raise ConfigError(f'{key}.type: found {kind!r}; one of {sorted([*KINDS, "Ensemble"])} is expected')
    arguments = check_arguments(key, cfg, KINDS[kind], ('key', 'student_preprocessor'),
                                'dict(config=..., checkpoint=...)')
    source = KINDS[kind](**arguments, key=key, student_preprocessor=student.data_preprocessor)
    if isinstance(source, FrozenTeacher):
        source.belongs_to(student)
        if source.inheritance is not None:
            source.inheritance.check(student, source.model)
    return source
