"""tools/benchmarks/same_steps.py names the first thing that differs, and nothing else."""
import copy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))
import first_steps  # noqa: E402
import same_steps  # noqa: E402


@pytest.fixture
def old():
    """Two steps of a student with one parameter and one adapter."""
    return dict(losses=[dict(loss_cls=[0.5, 0.25], acc=[90.0])] * 2,
                gradients=[{'fc.weight': 1.0, 'adapters.0.weight': 2.0}] * 2,
                weights={'fc.weight': torch.tensor([1.0, 2.0])}, beside={'adapters.0.weight': torch.tensor([3.0])})


def changed(old, *path, value):
    new = copy.deepcopy(old)
    spot = new
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = value
    return new


def test_equal_records(old):
    assert same_steps.difference(old, copy.deepcopy(old)) is None
    renamed = changed(old, 'beside', value={'terms.hint.weight': old['beside']['adapters.0.weight']})
    renamed['gradients'] = [{'fc.weight': 1.0, 'terms.hint.weight': 2.0}] * 2
    assert same_steps.difference(old, renamed) is None  # names beside the student are internal
    more = changed(old, 'losses', value=[dict(old['losses'][0], positives=[3.0])] * 2)
    assert same_steps.difference(old, more) is None  # so is what is logged further
    nan = changed(old, 'losses', value=[dict(loss_cls=[float('nan'), 0.25])] * 2)
    assert same_steps.difference(nan, copy.deepcopy(nan)) is None


@pytest.mark.parametrize('path, value, step, name', [
    (('losses', 1, 'loss_cls'), [0.5, 0.25000003], 2, 'loss_cls'),
    (('losses', 0, 'acc'), [89.0], 1, 'acc'),
    (('losses', 1, 'loss_more'), [0.0], 2, 'loss_more'),
    (('gradients', 1, 'fc.weight'), 1.0000000000000002, 2, 'gradient of fc.weight'),
    (('gradients', 0, 'adapters.0.weight'), 2.5, 1, 'gradients beside the student'),
    (('gradients', 0, 'peer.weight'), 2.5, 1, 'gradients beside the student'),
    (('weights', 'fc.weight'), torch.tensor([1.0, 2.0000002]), None, 'fc.weight'),
    (('weights', 'fc.bias'), torch.tensor([1.0]), None, 'fc.bias'),
    (('beside', 'adapters.0.weight'), torch.tensor([3.0000002]), None, 'tensors beside the student'),
    (('beside', 'adapters.1.weight'), torch.tensor([3.0]), None, 'tensors beside the student')])
def test_the_first_difference_is_named(old, path, value, step, name):
    old['losses'], old['gradients'] = copy.deepcopy(list(old['losses'])), copy.deepcopy(list(old['gradients']))
    old['losses'], old['gradients'] = [dict(s) for s in old['losses']], [dict(s) for s in old['gradients']]
    found = same_steps.difference(old, changed(old, *path, value=value))
    assert (found['step'], found['name']) == (step, name)
    assert same_steps.difference(changed(old, *path, value=value), old)['name'] == name


def test_patterns():
    cases = dict.fromkeys(['faster_rcnn/all', 'paa/lad', 'colad/paa-fisher'])
    assert same_steps.chosen(cases, None) == list(cases)
    assert same_steps.chosen(cases, 'paa') == ['paa/lad', 'colad/paa-fisher']
    assert same_steps.chosen(cases, 'paa/*') == ['paa/lad']


def test_a_case_that_left_no_record_is_a_failure(tmp_path):
    (tmp_path / 'paa_lad.error').write_text('ConfigError: reason\ntrace')
    results = same_steps.compare(['paa/lad', 'gone'], (str(tmp_path), str(tmp_path)))
    assert [r['equal'] for r in results] == [False, False] and 'reason' in results[0]['error']


def test_a_case_that_the_older_checkout_does_not_have_is_no_difference(old, tmp_path):
    base, _ = first_steps.CASES['paa/lad']
    assert first_steps.lacks('paa/lad', str(ROOT)) is None
    assert first_steps.lacks('paa/lad', str(tmp_path)) == f'configs/{base}'
    for side in ('old', 'new'):
        (tmp_path / side).mkdir()
    (tmp_path / 'old' / 'paa_lad.lacks').write_text('Distiller')
    torch.save(old, tmp_path / 'new' / 'paa_lad.pth')
    sides = [str(tmp_path / side) for side in ('old', 'new')]
    assert same_steps.compare(['paa/lad'], sides) == [dict(case='paa/lad', equal=False, lacks='Distiller')]
    assert 'error' in same_steps.compare(['paa/lad'], sides[::-1])[0]  # what is gone is a difference
