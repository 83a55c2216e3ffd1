"""An accuracy study: which runs it consists of, what identifies a run, and the small record each one leaves.

A study file is JSON::

    {"name": "...", "title": "...", "split": "train->eval", "base": "base",
     "teacher": {"row": "teacher", "seed": 0},
     "rows": [{"name": "base", "config": "configs/....py", "seeds": [0, 1], "options": {}, "description": "..."}]}

``split`` names the annotation files (``train.json`` and ``eval.json``). ``options`` are ``--cfg-options`` of a row,
``label`` is what tables call it, ``teacher`` names another row (or a row and its seed) as its teacher, ``base`` another
row to compare it with, ``shared: "study/row"`` takes a run from another study instead of repeating it, and ``network:
"second"`` with ``shared`` shows the second network of a CoLAD row, which is trained with the first.
"""
import json
import os
import os.path as osp
import re
import statistics
import tempfile
from dataclasses import dataclass, field

from mmengine.config import Config

from ..compare.accuracy import Accuracy
from ..compare.logs import read_log
from ..compare.runs import _last_checkpoint as last_checkpoint
from ..compat.checkpoint import load
from ..config import load_config
from ..errors import CompareError, StudyError

_ROW_KEYS = {'name', 'config', 'seeds', 'options', 'description', 'label', 'teacher', 'base',
             'shared', 'network'}
_STUDY_KEYS = {'name', 'title', 'split', 'base', 'teacher', 'rows'}


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
        base (str | None): the row it is compared with; None: the study's.
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
    base: str | None = None
    network: str = 'first'


@dataclass
class Study:
    """A study file. ``teacher`` is (row, seed) or None, ``base`` the row that others are compared with."""
    name: str
    title: str
    split: str
    base: str
    teacher: tuple | None
    rows: list

    def row(self, name: str) -> StudyRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise StudyError(f'study {self.name!r} has no row {name!r}; it has {[row.name for row in self.rows]}')

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
        spec = dict(spec, label=spec.get('label', spec['name']), teacher=_teacher(spec.get('teacher')))
        if spec.get('network', 'first') not in ('first', 'second') or (spec.get('network') == 'second'
                                                                       and 'shared' not in spec):
            raise StudyError(f'{path}: row {spec["name"]!r}: network {spec["network"]!r}; "second" is expected, beside '
                             'shared: "study/row" of the CoLAD row')
        rows.append(StudyRow(home=spec.pop('shared', f'{content["name"]}/{spec["name"]}'), **spec))
    study = Study(content['name'], content.get('title', content['name']), content['split'], content['base'],
                  _teacher(content.get('teacher')), rows)
    if len({row.name for row in rows}) < len(rows):
        raise StudyError(f'{path}: row names are not different: {[row.name for row in rows]}')
    teachers = [teacher[0] for teacher in (study.teacher, *(row.teacher for row in rows)) if teacher]
    for name in (study.base, *(row.base for row in rows if row.base), *teachers):
        study.row(name)
    return study


def _teacher(spec: dict | str | None) -> tuple | None:
    if spec is None:
        return None
    return (spec, 0) if isinstance(spec, str) else (spec['row'], spec.get('seed', 0))


# -- what identifies a run --------------------------------------------------------------------------------------------
def split_options(cfg: Config, split: str) -> dict:
    """``--cfg-options`` that make a config train and validate on the annotation files of ``split``.

    Args:
        cfg (Config): its files are called ``<part>.json``.
        split (str): ``'fit->dev'``; nothing is changed where the config has those files already.

    Raises:
        StudyError: the config names no annotation file for one of the two.
    """
    options: dict = {}
    train, evaluation = split.split('->')
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        found = list(ann_files(cfg.get(section), section))
        part = train if section == 'train_dataloader' else evaluation
        if not found and not section.startswith('test'):
            raise StudyError(f'split {split!r}: {section} of the config names no ann_file')
        for key, value in found:
            wanted = osp.join(osp.dirname(value), f'{part}.json')
            if value != wanted:
                options[key] = wanted
    return options


def ann_files(value, key: str):
    """(dotted key, value) of every ``ann_file`` in a part of a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for name, part in items:
        if name == 'ann_file' and isinstance(part, str):
            yield f'{key}.{name}', part
        else:
            yield from ann_files(part, f'{key}.{name}')


def resolve(study: Study, row: StudyRow, root: str = '.') -> tuple[Config, dict]:
    """The resolved config of a row and the ``--cfg-options`` that lead to it, without the teacher's checkpoint."""
    path = row.config if '::' in row.config else osp.join(root, row.config)
    cfg = load_config(path, dict(row.options))
    options = {**row.options, **split_options(cfg, study.split)}
    cfg.merge_from_dict(split_options(cfg, study.split))
    return cfg, options


# -- what a finished run left ------------------------------------------------------------------------------------------
@dataclass
class Finished:
    """A run whose last epoch was validated: ``cfg`` as dumped, ``accuracy`` in percent, ``seconds`` of all sessions.

    Of a CoLAD run also ``peer``, the second network's accuracy, and ``first_teaches``, the share of decisions that the
    first network took, over the whole training.
    """
    cfg: Config
    accuracy: Accuracy
    checkpoint: str
    seconds: float
    peer: Accuracy | None = None
    first_teaches: float | None = None


def run_config(work_dir: str) -> Config | None:
    """The resolved config of the run in a work directory; None if none began there."""
    if not osp.isdir(work_dir):
        return None
    path = read_log(work_dir).config
    if path is None:
        dumped = sorted(name for name in os.listdir(work_dir) if name.endswith('.py'))
        path = osp.join(work_dir, dumped[0]) if dumped else None
    return path and Config.fromfile(path, import_custom_modules=False)


def read_finished(work_dir: str) -> Finished | None:
    """The figures of the LAST epoch's validation; None if the run has not come so far, or its weights are gone.

    An earlier validation never counts: there is no model selection.
    """
    cfg = run_config(work_dir)
    if cfg is None:
        return None
    epochs = cfg.train_cfg.max_epochs
    log = read_log(work_dir)
    last = [record for record in log.records if record.split == 'val' and record.epoch == epochs]
    if not last:
        return None
    checkpoint = checkpoint_of(work_dir)
    return checkpoint and Finished(cfg, last[-1].accuracy, checkpoint, wall_seconds(work_dir), last[-1].peer,
                                   last[-1].peer and _first_teaches(checkpoint))


def _first_teaches(checkpoint: str) -> float | None:
    """Of a CoLAD run, from its last checkpoint."""
    taught = (load(checkpoint).get('kd_det') or {}).get('taught')
    return taught['first'] / taught['decisions'] if taught and taught['decisions'] else None


def checkpoint_of(work_dir: str) -> str | None:
    """The run's latest checkpoint; None if there is none or it was deleted."""
    try:
        return last_checkpoint(work_dir)
    except CompareError:
        return None


def wall_seconds(work_dir: str) -> float:
    """From the first to the last line of each session's log, summed over the sessions."""
    from datetime import datetime
    total = 0.0
    for name in sorted(os.listdir(work_dir)):
        path = osp.join(work_dir, name, f'{name}.log')
        if osp.isfile(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                stamps = re.findall(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', file.read(), re.MULTILINE)
            times = [datetime.strptime(stamp, '%Y/%m/%d %H:%M:%S') for stamp in stamps]
            total += (times[-1] - times[0]).total_seconds() if times else 0.0
    return total


# -- records -----------------------------------------------------------------------------------------------------------
def record_path(results: str, row: StudyRow, seed: int) -> str:
    study, name = row.home.split('/')
    return osp.join(results, study, f'{name}_seed{seed}.json')


def write_atomically(path: str, text: str) -> None:
    """The file is either the old or the new one, whole, also if the process dies."""
    os.makedirs(osp.dirname(path) or '.', exist_ok=True)
    handle, part = tempfile.mkstemp(dir=osp.dirname(path) or '.', suffix='.part')
    with os.fdopen(handle, 'w', encoding='utf-8') as file:
        file.write(text)
    os.chmod(part, 0o644)
    os.replace(part, path)


def read_record(path: str) -> dict | None:
    """A record, or None if there is none.

    Raises:
        StudyError: the file is not a record.
    """
    try:
        with open(path, encoding='utf-8') as file:
            record = json.load(file)
        record['accuracy']['AP'], record['seed'], record['config_sha256']
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f'{path}: not a record of a run ({error!r}); delete it') from error
    return record


def row_records(results: str, row: StudyRow) -> dict[int, dict]:
    """Every recorded seed of a row, also those that the study file does not list."""
    study, name = row.home.split('/')
    folder = osp.join(results, study)
    found = {}
    for file in sorted(os.listdir(folder)) if osp.isdir(folder) else ():
        if match := re.fullmatch(re.escape(name) + r'_seed(\d+)\.json', file):
            record = read_record(osp.join(folder, file))
            if row.network == 'second':
                if 'peer' not in record:
                    raise StudyError(f'{osp.join(folder, file)}: no second network in it; row {row.name!r} is not of CoLAD')
                record = {**record, **record['peer']}
            found[int(match[1])] = record
    return dict(sorted(found.items()))


def mean_seconds(records: dict[int, dict]) -> float | None:
    times = [record['wall_seconds'] for record in records.values() if record.get('wall_seconds')]
    return statistics.fmean(times) if times else None
