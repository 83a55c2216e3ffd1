"""Seeds of one config become mean and sample standard deviation, and nothing else does."""
import pytest
from mmengine.config import Config

from kd_det.compare.accuracy import FIGURES, Accuracy
from kd_det.compare.cost import Latency
from kd_det.compare.rows import Member, ap_difference, fold, latency_ratio
from kd_det.compare.runs import Run, recipe


def member(name, ap, seed=0, recipe='a', dataset='eval.json', **classes):
    accuracy = None if ap is None else Accuracy({**dict.fromkeys(FIGURES), 'AP': ap}, classes)
    return Member(Run(name, 'config', Config(), f'{name}.pth'), seed, recipe, accuracy, dataset,
                  1., 1.)


def test_seeds_fold_into_mean_and_sample_sd():
    rows, remarks = fold([member('s0', 50., 0), member('t', 60., 0, recipe='b'),
                          member('s1', 53., 1), member('s2', 56., 2)])
    assert [(row.name, len(row.members)) for row in rows] == [('config', 3), ('t', 1)]
    assert rows[0].figure('AP').mean == 53.
    assert rows[0].figure('AP').sd == 3.  # sqrt((9 + 0 + 9) / 2)
    assert rows[1].figure('AP').sd is None
    assert ap_difference(rows[1], rows[0]) == 7.
    assert remarks == []
    assert len(fold([member('s0', 50., 0), member('s1', 53., 1)], keep_apart=True)[0]) == 2


@pytest.mark.parametrize('seeds', [(0, 0), (0, None)])
def test_one_training_is_never_counted_twice(seeds):
    rows, remarks = fold([member('x', 50., seeds[0]), member('y', 51., seeds[1])])
    assert [row.name for row in rows] == ['x', 'y']
    assert f'x: {seeds[0]}, y: {seeds[1]}' in remarks[0]


def test_figures_on_different_data_are_neither_folded_nor_subtracted():
    rows, _ = fold([member('x', 50., 0), member('y', 51., 1, dataset='dev.json')])
    assert len(rows) == 2
    assert ap_difference(rows[1], rows[0]) is None


def test_a_missing_figure_is_missing_in_the_mean():
    rows, _ = fold([member('x', 50., 0, cell=10.), member('y', 52., 1)])
    assert rows[0].class_ap('cell') is None
    assert rows[0].figure('APs') is None


def test_equal_names_are_told_apart():
    rows, _ = fold([member('x', 50., 0, recipe='a'), member('x', 51., 0, recipe='b')])
    assert [row.name for row in rows] == ['x', 'x (2)']


def test_latency_ratio_is_that_of_the_medians():
    first, second = fold([member('x', 50., recipe='a'), member('y', 50., recipe='b')])[0]
    assert latency_ratio(second, first) is None
    first.latency, second.latency = Latency([1., 2., 9.]), Latency([3., 5., 6.])
    assert latency_ratio(second, first) == 2.5


CONFIG = {'model': {'type': 'A', 'size': (1, 2)}, 'randomness': {'seed': 0}, 'work_dir': 'a',
          'resume': False, 'load_from': None}


def same(other, meta=None):
    first = recipe(Config(CONFIG), {'epoch': 8, 'iter': 80, 'seed': 0})
    return first == recipe(Config(other), meta or {'epoch': 8, 'iter': 80, 'seed': 1})


def test_recipe_leaves_out_the_seed_and_where_and_how_the_run_was_started():
    assert same({**CONFIG, 'randomness': {'seed': 1}, 'work_dir': 'b', 'launcher': 'pytorch'})
    assert same({**CONFIG, 'model': {'size': [1, 2], 'type': 'A'}})  # order, and list or tuple
    resumed = {**CONFIG, 'resume': True, 'load_from': 'a/epoch_3.pth'}
    assert recipe(Config({**resumed, 'load_from': None}), {}) == recipe(Config(resumed), {})


@pytest.mark.parametrize('change', [
    {'model': {'type': 'A', 'size': (1, 3)}}, {'load_from': 'pretrained.pth'},
    {'randomness': {'seed': 1, 'deterministic': True}}])
def test_recipe_tells_trainings_apart(change):
    assert not same({**CONFIG, **change})


def test_recipe_tells_a_longer_training_apart():
    assert not same(CONFIG, {'epoch': 4, 'iter': 40})
