"""The small record that every finished run of a study leaves below ``work_dirs/results/``."""
import json
import os
import os.path as osp
import re
import statistics

from ..errors import StudyError
from .definition import StudyRow


def record_path(results: str, row: StudyRow, seed: int) -> str:
    study, name = row.home.split('/')
    return osp.join(results, study, f'{name}_seed{seed}.json')


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
                    raise StudyError(f'{osp.join(folder, file)}: no second network in it; row {row.name!r} is not of '
                                     'CoLAD')
                record = {**record, **record['peer']}
            found[int(match[1])] = record
    return dict(sorted(found.items()))


def mean_seconds(records: dict[int, dict]) -> float | None:
    times = [record['wall_seconds'] for record in records.values() if record.get('wall_seconds')]
    return statistics.fmean(times) if times else None
