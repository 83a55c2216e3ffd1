"""What the kept detections of a study say: intervals over evaluation images, and error types.

Computing them needs the ground truth; what was computed is kept beside the records, so that tables can be written where
the data set is not.
"""
import hashlib
import json
import os
import os.path as osp
import statistics
from dataclasses import dataclass
from functools import lru_cache

from ..compare.bootstrap import DRAWS, ImageDifference, paired_bootstrap
from ..compare.detections import file_hash, read_detections
from ..compare.error_types import TYPES, find_errors
from ..compare.matching import Matches, load_truth, match
from ..errors import StudyError
from ..files import write_whole
from .configs import ann_files, resolve
from .definition import Study, StudyRow
from .evaluating import detections_path
from .records import row_records

FILE = 'images.json'


@dataclass
class Found:
    """Of one row. ``differences`` to its base by column; ``errors``: what each type costs in AP50 points, mean over
    seeds.

    Both are empty where detections, or the ground truth to compute them from, are missing.
    """
    differences: dict[str, ImageDifference]
    errors: dict[str, float]


def ground_truth(study: Study, root: str, data_root: str | None = None) -> str | None:
    """The annotation file that a study is evaluated on; None if it is not on this machine."""
    cfg, _ = resolve(study, study.rows[0], root)
    configured = next(value for _, value in ann_files(cfg.val_evaluator, ''))
    if data_root and cfg.get('data_root'):
        configured = osp.join(data_root, osp.relpath(configured, cfg.data_root))
    path = osp.join(root, configured)
    return path if osp.isfile(path) else None


def image_intervals(study: Study, results: str, truth: str | None) -> dict[str, Found]:
    """By row of the study; what is not known yet is computed if ``truth`` is given, and kept in ``images.json``.

    A row's kept figures count as long as the detections, the ground truth and the pairs of seeds are the same.

    Raises:
        StudyError: the ground truth, or a file of detections, is not the one of the records.
    """
    path = osp.join(results, study.name, FILE)
    known = {}
    if osp.isfile(path):
        with open(path, encoding='utf-8') as file:
            known = json.load(file)
    records = {row.name: row_records(results, row) for row in study.rows}
    entries = {}
    for row in study.rows:
        seeds = [seed for seed, record in records[row.name].items() if 'detections' in record]
        base = study.row(study.base_of(row))
        pairs = [seed for seed in seeds if 'detections' in records[base.name].get(seed, {})] if base is not row else []
        if not seeds:
            continue
        key = _key([records[row.name][s] for s in seeds], [records[base.name][s] for s in pairs])
        entry = known.get(row.name)
        if entry is None or entry['key'] != key:
            if truth is None:
                continue
            entry = dict(key=key, seeds=seeds, base=base.name, pairs=pairs,
                         **_computed(results, truth, row, base, records, seeds, pairs))
        entries[row.name] = entry
    if entries != known and truth is not None:
        write_whole(path, json.dumps(entries, indent=1) + '\n')
    return {row.name: _found(entries.get(row.name)) for row in study.rows}


def _key(records: list[dict], base: list[dict]) -> str:
    content = [[r['detections']['sha256'] for r in part] for part in (records, base)]
    return hashlib.sha256(json.dumps([content, records[0]['annotations'], DRAWS]).encode()).hexdigest()


def _computed(results: str, truth: str, row: StudyRow, base: StudyRow, records: dict, seeds: list[int],
              pairs: list[int]) -> dict:
    one, other = records[row.name], records[base.name]
    for seed in seeds:
        expected = one[seed]['annotations'].get(osp.basename(truth))
        if expected not in (None, file_hash(truth)):
            raise StudyError(f'{truth} is not the file that {row.name} seed {seed} was evaluated on; give the same '
                             'data with --data-root')
    files = {seed: _checked(results, row, seed, one[seed]) for seed in seeds}
    classes = tuple(one[seeds[0]]['per_class']) or None
    found: dict = {}
    if pairs:
        sides = [_matches(files[seed], classes, truth) for seed in pairs], \
                [_matches(_checked(results, base, seed, other[seed]), classes, truth) for seed in pairs]
        found['differences'] = {name: [d.value, d.low, d.high, d.draws] for name, d in paired_bootstrap(*sides).items()}
    costs = [_costs(path, classes, truth) for path in files.values()]
    found['errors'] = {kind: statistics.fmean(cost[kind] for cost in costs) for kind in TYPES}
    return found


def _checked(results: str, row: StudyRow, seed: int, record: dict) -> str:
    path = detections_path(results, row, seed)
    if not osp.isfile(path) or file_hash(path) != record['detections']['sha256']:
        raise StudyError(f'{path} is missing or not the file that the record beside it names; restore it')
    return path


@lru_cache(maxsize=32)
def _matched(path: str, changed: int, classes: tuple | None, truth: str) -> Matches:
    return match(load_truth(truth), read_detections(path), classes)


def _matches(path: str, classes: tuple | None, truth: str) -> Matches:
    return _matched(path, os.stat(path).st_mtime_ns, classes, truth)


@lru_cache(maxsize=256)
def _costs_of(path: str, changed: int, classes: tuple | None, truth: str) -> dict[str, float]:
    return find_errors(load_truth(truth), read_detections(path), classes).costs


def _costs(path: str, classes: tuple | None, truth: str) -> dict[str, float]:
    return _costs_of(path, os.stat(path).st_mtime_ns, classes, truth)


def _found(entry: dict | None) -> Found:
    entry = entry or {}
    return Found({name: ImageDifference(*values) for name, values in entry.get('differences', {}).items()},
                 entry.get('errors', {}))
