"""A study file: the detectors that are trained and compared, and on which data.

It is JSON::

    {"name": "...", "title": "...", "split": "train->eval", "base": "base",
     "teacher": {"row": "teacher", "seed": 0},
     "rows": [{"name": "base", "config": "configs/....py", "seeds": [0, 1], "options": {}, "description": "..."}]}

``split`` names the annotation files (``train.json`` and ``eval.json``). ``options`` are ``--cfg-options`` of a row,
``label`` is what tables call it, ``teacher`` names another row (or a row and its seed) as its teacher, ``sources`` one
for each trained network of a config's ``sources`` and for CoLAD's ``peer`` if it has a checkpoint, ``base`` another row
to compare it with, ``shared: "study/row"`` takes a run from another study instead of repeating it, and ``network:
"second"`` with ``shared`` shows the second network of a CoLAD row, which is trained with the first. ``groups`` of the
study are groups of classes, {"rare": ["Bus"]}, for tables of mean AP.
"""
import json
import re
from dataclasses import dataclass, field

from ..errors import StudyError

_ROW_KEYS = {'name', 'config', 'seeds', 'options', 'description', 'label', 'teacher', 'sources', 'base',
             'shared', 'network'}
_STUDY_KEYS = {'name', 'title', 'split', 'base', 'teacher', 'rows', 'groups'}


@dataclass
class StudyRow:
    """One detector of a study, trained once for each seed.

    Attributes:
        name (str): used in paths; ``label`` (str) is used in tables.
        config (str): config file.
        seeds (list[int]): those that are run without ``--seeds``.
        options (dict): changes of the config, dotted keys.
        home (str): ``study/row`` under which checkpoints and records lie.
        teacher (tuple[str, int] | None): row and seed of its teacher; None: the study's.
        sources (dict[str, tuple[str, int]]): the same for each trained network in its config's ``model.sources``, and
            for ``peer``.
        base (str | None): the row it is compared with; None: the study's, or none for a row that others are compared
            with.
        network (str): 'second' for the second network of the CoLAD runs in ``home``; it is never trained by itself.
    """
    name: str
    config: str
    seeds: list
    label: str
    home: str
    options: dict = field(default_factory=dict)
    description: str = ''
    teacher: tuple | None = None
    sources: dict = field(default_factory=dict)
    base: str | None = None
    network: str = 'first'


@dataclass
class Study:
    """A study file. ``teacher`` is (row, seed) or None, ``base`` the row that others are compared with, ``groups``
    names of groups of classes (rare, frequent ...) with the classes in them, for tables of mean AP.
    """
    name: str
    title: str
    split: str
    base: str
    teacher: tuple | None
    rows: list
    groups: dict = field(default_factory=dict)

    def row(self, name: str) -> StudyRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise StudyError(f'study {self.name!r} has no row {name!r}; it has {[row.name for row in self.rows]}')

    def teaching(self) -> set[str]:
        """Names of the rows that teach others."""
        named = [self.teacher, *(row.teacher for row in self.rows),
                 *(t for row in self.rows for t in row.sources.values())]
        return {one[0] for one in named if one}

    def teacher_of(self, row: StudyRow) -> tuple | None:
        return row.teacher or self.teacher

    def base_of(self, row: StudyRow) -> str:
        return row.base or self.base


def load_study(path: str) -> Study:
    """Read a study file.

    Raises:
        StudyError: no such file, not JSON, unknown or missing keys, a row named twice, a reference to no row.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except FileNotFoundError:
        raise StudyError(f'no study file {path!r}') from None
    except ValueError as error:
        raise StudyError(f'{path}: not JSON ({error})') from error
    if unknown := set(content) - _STUDY_KEYS:
        raise StudyError(f'{path}: unknown keys {sorted(unknown)}; known are {sorted(_STUDY_KEYS)}')
    for key in ('name', 'split', 'base', 'rows'):
        if key not in content:
            raise StudyError(f'{path}: {key!r} is missing')
    if not re.fullmatch(r'\w+->\w+', content['split']):
        raise StudyError(f'{path}: split {content["split"]!r}; "train->eval" or "fit->dev" is expected')
    rows = []
    for spec in content['rows']:
        if unknown := set(spec) - _ROW_KEYS:
            raise StudyError(f'{path}: row {spec.get("name")!r} has unknown keys {sorted(unknown)}; known are '
                             f'{sorted(_ROW_KEYS)}')
        if not {'name', 'config', 'seeds'} <= set(spec):
            raise StudyError(f'{path}: row {spec.get("name")!r} needs name, config and seeds')
        spec = dict(spec, label=spec.get('label', spec['name']), teacher=_teacher(spec.get('teacher')),
                    sources={name: _teacher(one) for name, one in spec.get('sources', {}).items()})
        if spec.get('network', 'first') not in ('first', 'second') or (spec.get('network') == 'second'
                                                                       and 'shared' not in spec):
            raise StudyError(f'{path}: row {spec["name"]!r}: network {spec["network"]!r}; "second" is expected, beside '
                             'shared: "study/row" of the CoLAD row')
        rows.append(StudyRow(home=spec.pop('shared', f'{content["name"]}/{spec["name"]}'), **spec))
    study = Study(content['name'], content.get('title', content['name']), content['split'], content['base'],
                  _teacher(content.get('teacher')), rows, _groups(path, content.get('groups', {})))
    if len({row.name for row in rows}) < len(rows):
        raise StudyError(f'{path}: row names are not different: {[row.name for row in rows]}')
    for name in (study.base, *(row.base for row in rows if row.base), *study.teaching()):
        study.row(name)
    return study


def _groups(path: str, spec: dict) -> dict[str, list[str]]:
    if not isinstance(spec, dict) or not all(isinstance(names, list) and names for names in spec.values()):
        raise StudyError(f'{path}: groups {spec!r}; names of groups with lists of classes are expected, '
                         '{"rare": ["Bus"]}')
    return spec


def _teacher(spec: dict | str | None) -> tuple | None:
    if spec is None:
        return None
    return (spec, 0) if isinstance(spec, str) else (spec['row'], spec.get('seed', 0))
