"""Which rows of a study teach a row, and where their weights stand in its config."""
import os.path as osp

from mmengine.config import Config

from ..errors import StudyError
from .definition import Study, StudyRow
from .finished import Finished
from .identity import weights_hash

ONE = 'model.teacher'


def taught_by(study: Study, row: StudyRow, cfg: Config) -> dict[str, tuple[str, int]]:
    """Place of a trained network in the config (``model.teacher``, ``model.sources.NAME``, ``model.peer``) -> (row,
    seed) that trains it.

    Raises:
        StudyError: the study names no row for it, or one with another config; a row for a source that is not there.
    """
    found = {}
    places = networks(cfg)
    for place, config in places.items():
        name = place.rpartition('.')[2]
        named = study.teacher_of(row) if place == ONE else row.sources.get(name)
        if named is None:
            key = '"teacher": {"row": ..., "seed": 0}' if place == ONE else f'"sources": {{"{name}": ...}} to the row'
            what = 'teacher' if place == ONE else place
            raise StudyError(f'row {row.name!r} distils, but the study names no {what}; add {key}')
        if study.row(named[0]).config != config:
            raise StudyError(f'row {row.name!r}: its config names the teacher {config!r} ({place}), the study the row '
                             f'{named[0]!r} with {study.row(named[0]).config!r}; make them equal')
        found[place] = named
    strange = [name for name in row.sources if not {f'model.sources.{name}', f'model.{name}'} & set(places)]
    if strange:
        raise StudyError(f'row {row.name!r}: its config has no trained source {strange}; it has {list(places)}')
    return found


def networks(cfg: Config) -> dict[str, str]:
    """Place of each network that another run has to train -> its config. CoLAD's peer is one if it has a checkpoint."""
    model = cfg.get('model') or {}
    one, several = model.get('teacher'), model.get('sources') or {}
    places = {ONE: one, **{f'model.sources.{name}': source for name, source in several.items()}}
    if (model.get('peer') or {}).get('checkpoint'):
        places['model.peer'] = model['peer']
    return {place: source['config'] for place, source in places.items()
            if isinstance(source, dict) and source.get('config') and source.get('type') != 'Peer'}


def checkpoint_in(cfg: Config, place: str) -> str:
    """The checkpoint that a config names at a place of :func:`networks`."""
    part = cfg
    for name in place.split('.'):
        part = part[name]
    return part['checkpoint']


def teacher_records(teachers: dict, finished: Finished, root: str) -> dict[str, dict]:
    """What a record says of those that taught a finished run: by place, row, seed and hash of weights.

    Args:
        teachers: tasks by place.
        finished: the run.
        root: relative checkpoints are below it.

    Raises:
        StudyError: a checkpoint is gone.
    """
    found = {}
    for place, task in teachers.items():
        path = checkpoint_in(finished.cfg, place)
        path = path if '://' in path else osp.join(root, path)
        if '://' not in path and not osp.isfile(path):
            raise StudyError(f'its teacher {path!r} is gone, so its weights cannot be recorded')
        found[place] = dict(row=task.row.name, seed=task.seed, weights_sha256=weights_hash(path))
    return found
