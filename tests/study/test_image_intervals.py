"""Intervals over images and error types of a study: computed once, shown, and never of other files than the records'.
"""
import json

import pytest
from coco_scenes import random_scene

from kd_det.compare.bootstrap import paired_bootstrap
from kd_det.compare.detections import file_hash, read_detections, write_detections
from kd_det.compare.error_types import TYPES, find_errors
from kd_det.compare.matching import match
from kd_det.errors import StudyError
from kd_det.study.breakdown import breakdown, write_page
from kd_det.study.definition import load_study
from kd_det.study.evaluating import detections_path
from kd_det.study.image_intervals import image_intervals
from kd_det.study.records import record_path
from kd_det.study.table import study_table


@pytest.fixture
def place(tmp_path):
    """A study of two rows with two seeds each, kept detections, and the ground truth; returns all of it."""
    (tmp_path / 'study.json').write_text(json.dumps(dict(
        name='toy', title='Toy', split='train->eval', base='base', rows=[
            dict(name='base', config='c.py', seeds=[0, 1]), dict(name='all', config='c.py', seeds=[0, 1])])))
    study, results = load_study(str(tmp_path / 'study.json')), str(tmp_path / 'results')
    truth, one, other = random_scene(images=25)
    path = tmp_path / 'eval.json'
    path.write_text(json.dumps(truth.dataset))
    for row, found in (('base', other), ('all', one)):
        for seed in (0, 1):
            kept = found[seed::20] + found[:len(found) // 2]
            sha = write_detections(detections_path(results, study.row(row), seed), kept)
            record = dict(seed=seed, config_sha256='0', wall_seconds=60, accuracy=dict(AP=40.0 + seed, AP50=60.0),
                          per_class=dict(cat=1, dog=1, eel=1), detections=dict(sha256=sha),
                          annotations={'eval.json': file_hash(str(path))})
            with open(record_path(results, study.row(row), seed), 'w', encoding='utf-8') as file:
                json.dump(record, file)
    return study, results, str(path), truth


def test_a_study_shows_what_bootstrap_and_error_types_say(place):
    study, results, path, truth = place
    images = image_intervals(study, results, path)
    sides = [[match(truth, read_detections(detections_path(results, study.row(row), seed))) for seed in (0, 1)]
             for row in ('all', 'base')]
    expected = paired_bootstrap(*sides)
    assert images['all'].differences == expected and images['base'].differences == {}
    costs = [find_errors(truth, read_detections(detections_path(results, study.row('all'), seed))).costs
             for seed in (0, 1)]
    for kind in TYPES:
        assert images['all'].errors[kind] == pytest.approx((costs[0][kind] + costs[1][kind]) / 2)
    table = study_table(study, results, images)
    ap = expected['AP']
    assert '| AP - base [95 % over seeds] | [95 % over images] |' in table
    assert f'| +0.0 [+0.0, +0.0] | [{ap.low:+.1f}, {ap.high:+.1f}] |' in table
    details = breakdown(study, images)
    assert '| | less | AP | APs | APm | APl | cat | dog | eel |' in details and '| all | base |' in details
    assert f'| all | {" | ".join(format(images["all"].errors[kind], ".1f") for kind in TYPES)} |' in details


def test_figures_are_kept_so_that_tables_need_no_data_set(place, monkeypatch):
    study, results, path, _ = place
    images = image_intervals(study, results, path)
    monkeypatch.setattr('kd_det.study.image_intervals.paired_bootstrap', None)  # would fail if it were called
    assert image_intervals(study, results, path) == images
    assert image_intervals(study, results, None) == images
    write_page(results, study, study_table(study, results, images), breakdown(study, images))
    with open(f'{results}/toy/README.md', encoding='utf-8') as file:
        text = file.read()
    assert text.startswith('**Toy**') and 'error types' in text


def test_without_the_data_set_new_detections_have_no_interval_and_the_table_no_column(place):
    study, results, _, _ = place
    images = image_intervals(study, results, None)
    assert not images['all'].differences and not images['all'].errors and breakdown(study, images) == ''
    assert 'over images' not in study_table(study, results, images)


def test_other_files_than_the_records_name_are_refused(place, tmp_path):
    study, results, path, truth = place
    (tmp_path / 'other').mkdir()
    other = tmp_path / 'other' / 'eval.json'
    other.write_text(json.dumps(dict(truth.dataset, info='changed')))
    with pytest.raises(StudyError, match='is not the file that base seed 0 was evaluated on'):
        image_intervals(study, results, str(other))
    write_detections(detections_path(results, study.row('all'), 1), [])
    with pytest.raises(StudyError, match=r'all_seed1.*not the file that the record'):
        image_intervals(study, results, path)
