"""Reading work directories: joined sessions, evaluation records, broken files."""
import json

import pytest

from kd_det.compare.accuracy import accuracy_of
from kd_det.compare.logs import read_log
from kd_det.errors import CompareError

CONFIG = '''
val_evaluator = dict(type='CocoMetric', ann_file='data/dev.json')
test_evaluator = [dict(type='DumpDetResults'), dict(type='CocoMetric', ann_file='data/eval.json')]
'''


def train_line(epoch, iteration, loss=1.):
    return {'loss': loss, 'epoch': epoch, 'iter': iteration, 'step': iteration}


def val_line(epoch, ap):
    return {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': 2 * ap, 'step': epoch}


def write_session(work_dir, name, lines, test=None, config=CONFIG, end='\n'):
    vis_data = work_dir / name / 'vis_data'
    vis_data.mkdir(parents=True)
    (vis_data / 'config.py').write_text(config)
    if lines:
        text = '\n'.join(json.dumps(line) for line in lines) + end
        (vis_data / f'{name}.json').write_text(text)
    if test is not None:
        (work_dir / name / f'{name}.json').write_text(json.dumps(test))


def test_a_resumed_session_replaces_what_it_repeats(tmp_path):
    write_session(tmp_path, '20260101_000000', [
        train_line(1, 5, 3.), val_line(1, .1), train_line(2, 15, 2.), val_line(2, .2),
        train_line(3, 25, 9.)])
    # killed in epoch 3, resumed after epoch 1
    write_session(tmp_path, '20260102_000000', [train_line(2, 15, 1.9), val_line(2, .25)])
    log = read_log(str(tmp_path))
    assert [(line['iter'], line['loss']) for line in log.train] == [(5, 3.), (15, 1.9)]
    assert [(r.epoch, r.accuracy.figures['AP']) for r in log.records] == [(1, 10.), (2, 25.)]
    assert log.config.endswith('20260102_000000/vis_data/config.py')


def test_a_test_after_training_is_the_last_record_and_keeps_the_training_config(tmp_path):
    write_session(tmp_path, '20260101_000000', [train_line(1, 5), val_line(1, .1)])
    write_session(tmp_path, '20260102_000000', [], test={'coco/bbox_mAP': .3, 'time': .1},
                  config=CONFIG + "load_from = 'other/epoch_1.pth'\n")
    val, test = read_log(str(tmp_path)).records
    assert (val.split, val.dataset, val.iter) == ('val', 'data/dev.json', 5)
    assert (test.split, test.dataset, test.checkpoint) == (
        'test', 'data/eval.json', 'other/epoch_1.pth')
    assert read_log(str(tmp_path)).config.endswith('20260101_000000/vis_data/config.py')


def test_training_on_makes_an_earlier_test_obsolete(tmp_path):
    write_session(tmp_path, '20260101_000000', [train_line(1, 5), val_line(1, .1)])
    write_session(tmp_path, '20260102_000000', [], test={'coco/bbox_mAP': .3})
    write_session(tmp_path, '20260103_000000', [train_line(2, 10)])
    assert [record.split for record in read_log(str(tmp_path)).records] == ['val']


def test_runs_that_count_in_iterations(tmp_path):
    lines = [{'loss': 1., 'iter': 50, 'step': 50}, {'coco/bbox_mAP': .1, 'step': 100}]
    write_session(tmp_path, '20260101_000000', lines, config=(
        CONFIG + 'default_hooks = dict(logger=dict(log_metric_by_epoch=False))'))
    log = read_log(str(tmp_path))
    assert log.iters_per_epoch() is None
    assert (log.records[0].iter, log.records[0].epoch) == (100, None)


def test_length_of_an_epoch_from_lines_that_skip_its_end(tmp_path):
    # 42 iterations an epoch, logged at 20 and 40 of each
    lines = [train_line(e, 42 * (e - 1) + i) for e in range(1, 9) for i in (20, 40)]
    write_session(tmp_path, '20260101_000000', lines)
    assert read_log(str(tmp_path)).iters_per_epoch() == 42


def test_an_unfinished_last_line_is_left_out_and_a_broken_one_is_an_error(tmp_path):
    write_session(tmp_path / 'killed', '20260101_000000', [train_line(1, 5), train_line(1, 9)],
                  end='\n{"loss": 1.')
    assert len(read_log(str(tmp_path / 'killed')).train) == 2
    write_session(tmp_path / 'broken', '20260101_000000', [train_line(1, 5)],
                  end='\n{"loss": 1.\n{}\n')
    with pytest.raises(CompareError, match=r'20260101_000000\.json, line 2: .*"loss": 1\.'):
        read_log(str(tmp_path / 'broken'))


def test_a_broken_test_record_is_an_error(tmp_path):
    write_session(tmp_path, '20260101_000000', [train_line(1, 5)], test={})
    (tmp_path / '20260101_000000' / '20260101_000000.json').write_text('{"coco/')
    with pytest.raises(CompareError, match='not JSON'):
        read_log(str(tmp_path))


def test_figures_are_percent_and_what_coco_could_not_measure_is_none():
    accuracy = accuracy_of({'coco/bbox_mAP': .457, 'coco/bbox_mAP_s': -1., 'coco/segm_mAP': .9,
                            'coco/red cell_precision': .29, 'coco/rare_precision': float('nan')})
    assert accuracy.figures == {'AP': 45.7, 'AP50': None, 'AP75': None, 'APs': None, 'APm': None,
                                'APl': None}
    assert accuracy.per_class == {'red cell': 29., 'rare': None}
    assert accuracy_of({'pascal_voc/AP50': .8, 'pascal_voc/mAP': .8}).figures['AP50'] == 80.
    assert accuracy_of({'loss': 1., 'time': .1}) is None
