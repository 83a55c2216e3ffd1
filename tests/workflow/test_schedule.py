"""Schedules and anchors for data sets of other sizes; configs as text."""
import os

import pytest
from conftest import faster_rcnn_cfg
from dense_detectors import dense_cfg
from mmengine.config import Config
from mmengine.hub import get_config

from kd_det.compare.progress import last_progress, last_said, tail
from kd_det.errors import ConfigError
from kd_det.workflow.anchors import Scale, anchor_scale, input_scale, of_both
from kd_det.workflow.config_text import config_text, merged, nested
from kd_det.workflow.running import seconds_left, share_done
from kd_det.workflow.schedule import schedule
from kd_det.workflow.stages import Making, Training

RESIZE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(1333, 800), keep_ratio=True)]


@pytest.fixture(scope='module')
def coco():
    return get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')


def test_a_large_set_keeps_the_configs_epochs(coco):
    plan = schedule(coco, 20_000)
    assert (plan.epochs, plan.batch, plan.steps) == (12, 2, 10_000)
    assert plan.changes['optim_wrapper']['optimizer']['lr'] == pytest.approx(0.02 * 2 / 16)
    warm_up, steps = plan.changes['param_scheduler']
    assert (warm_up['end'], steps['milestones'], steps['end']) == (500, [8, 11], 12)


@pytest.mark.parametrize('images, epochs', [(2_500, 24), (1_111, 36), (40, 72)])
def test_a_small_set_is_seen_more_often(coco, images, epochs):
    """12 x sqrt(10,000 / images), at most six times; milestones in proportion, a warm-up of a tenth at most."""
    plan = schedule(coco, images)
    assert plan.epochs == epochs
    warm_up, steps = plan.changes['param_scheduler']
    assert steps['milestones'] == [round(8 * epochs / 12), round(11 * epochs / 12)] and steps['end'] == epochs
    assert warm_up['end'] == min(500, plan.steps * epochs // 10)
    assert plan.changes['train_cfg'] == dict(max_epochs=epochs, val_interval=epochs // 5)


def test_what_is_asked_for_comes_first(coco):
    plan = schedule(coco, 40, epochs=3, batch=8)
    assert (plan.epochs, plan.batch, plan.steps) == (3, 8, 5) and 'as asked for' in plan.text
    assert schedule(coco, 6).batch == 1  # a quarter of the images at most
    assert coco.param_scheduler[1].milestones == [8, 11]  # the config itself is left alone


def test_late_switches_and_cosine_periods_move_too():
    cfg = get_config('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    plan = schedule(cfg, 500, epochs=30)
    warm_up, cosine = plan.changes['param_scheduler']
    assert (cosine['begin'], cosine['end'], cosine['T_max']) == (15, 30, 15) and warm_up['end'] == plan.steps * 30 // 10
    switch = next(hook for hook in plan.changes['custom_hooks'] if hook['type'] == 'PipelineSwitchHook')
    assert switch['switch_epoch'] == 28 and plan.changes['train_cfg']['dynamic_intervals'] == [(28, 1)]
    assert schedule(cfg, 500).epochs == 300  # its own are more than any set needs
    yolox = schedule(get_config('mmdet::yolox/yolox_s_8xb8-300e_coco.py'), 500, epochs=30).changes
    assert [one['end'] for one in yolox['param_scheduler']] == [1, 28, 30]
    with pytest.raises(ConfigError, match='counts no epochs'):
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=9)
        schedule(cfg, 500)


def test_repeated_sets_count_as_often_as_they_are_seen():
    plan = schedule(get_config('mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712-cocofmt.py'), 1000)
    assert plan.steps == 1000 * 3 // 2


# -- anchors ------------------------------------------------------------------------------------------------------
def square(side, image=1000):
    return (side, side, image, image)


def test_objects_of_cocos_sizes_keep_the_scale(coco):
    """Scale 8 has anchors of 32, 64, 128 ... pixels; 50 of 1000 are 40 in an input of 800, served by 32."""
    scale = anchor_scale(coco.model, RESIZE, [square(side) for side in (50, 80, 200, 400)])
    assert not scale.changed and (scale.old, scale.value) == (8, [8])
    assert scale.path == 'rpn_head.anchor_generator.scales'


def test_small_objects_get_smaller_anchors(coco):
    """12 pixels wide in the input: IoU with anchors of 32 is (12 / 32)^2 = 0.14."""
    scale = anchor_scale(coco.model, RESIZE, [square(15)] * 20)
    assert scale.changed and scale.new <= 4 and '0% of the objects' in scale.reason and '12 pixels' in scale.reason
    dense = dense_cfg('retinanet')
    assert anchor_scale(dense, RESIZE, [square(15)] * 20).path == 'bbox_head.anchor_generator.octave_base_scale'


def test_detectors_without_such_anchors_are_left_alone():
    assert anchor_scale(dense_cfg('fcos'), RESIZE, [square(10)]) is None
    assert anchor_scale(dense_cfg('gfl'), RESIZE, [square(10)]) is None  # ATSS assigns by distance
    cfg = faster_rcnn_cfg()
    cfg.rpn_head.anchor_generator.scales = [4, 8]
    assert anchor_scale(cfg, RESIZE, [square(10)]) is None
    assert anchor_scale(faster_rcnn_cfg(), RESIZE, []) is None


def test_input_scale():
    assert input_scale(RESIZE) == ((1333, 800), True)
    assert input_scale([dict(type='mmdet.Resize', scale=320)]) == ((320, 320), False)
    assert input_scale([]) == (None, True)


# -- text ---------------------------------------------------------------------------------------------------------
def test_text_reads_back_as_what_it_was(tmp_path):
    options = nested({'model.c.d': 'e' * 120, 'model.b': {'k-2': 1.5}})
    content = merged(dict(model=dict(a=[1, (2,)], b=None), x='it\'s'), options)
    path = tmp_path / 'c.py'
    path.write_text(config_text('one\ntwo', content))
    assert path.read_text().startswith('# one\n# two\n') and max(map(len, path.read_text().splitlines())) < 150
    assert Config.fromfile(path).to_dict() == content
    assert merged(dict(a=dict(b=1)), dict(a=dict(_delete_=True, c=2))) == dict(a=dict(_delete_=True, c=2))


# -- time ---------------------------------------------------------------------------------------------------------
def stage(seconds, epochs=4, resumed=False):
    return Training('x', '', 'x.py', 'x', epochs, 110, 1, seconds, resumed)


@pytest.mark.parametrize('text, share', [
    ('starting', 0), ('train [1][55/110] eta 0:01:00', 0.125), ('train [4][110/110] eta 0:00:00', 1),
    ('val [1][20/188] eta 0:00:10', 0.25), ('val [4][188/188] eta 0:00:00', 1)])
def test_how_much_of_a_training_is_done(text, share):
    assert share_done(text, 4) == share


def test_time_left_follows_the_pace_that_is_seen():
    """Twice as slow as estimated: the stages after it will be, too. A beginning, or a run that goes on, says nothing.
    """
    rest = [stage(200.), Making('y', '', [], 'y'), stage(100.)]
    half = 'train [3][0/110] eta 0:01:00'
    assert seconds_left(stage(400.), half, 400., rest) == pytest.approx(400 + 2 * 300)
    assert seconds_left(stage(400.), half, 200., rest) == pytest.approx(200 + 300)
    assert seconds_left(stage(400.), 'train [1][10/110] eta 0:09:00', 90., rest) == pytest.approx(310 + 300)
    assert seconds_left(stage(400., resumed=True), half, 90., rest) == pytest.approx(310 + 300)
    assert seconds_left(Making('y', '', [], 'y', seconds=50.), 'train', 80., rest) == pytest.approx(300)


# -- anchors of a pair --------------------------------------------------------------------------------------------
RPN, DENSE = 'rpn_head.anchor_generator.scales', 'bbox_head.anchor_generator.octave_base_scale'


@pytest.mark.parametrize('ours, theirs, trained, scales, words', [
    ((RPN, 8, 3), (RPN, 4, 4), True, (3, 3), ['ANCHORS: scale 8 becomes 3 in teacher and student']),
    ((RPN, 8, 8), (RPN, 4, 3), True, (8, 8), ['anchors: scale 8 stays; ']),
    ((RPN, 8, 3), (RPN, 4, 4), False, (4, None), ['ANCHORS: scale 8 becomes 4 in the student: the teacher\'s']),
    ((RPN, 8, 3), (RPN, 8, 3), False, (8, None), ['anchors: scale 8 stays, because the teacher is taken as it comes']),
    ((RPN, 8, 8), (RPN, 8, 3), False, (8, None), ['anchors: scale 8 stays; ']),
    ((RPN, 8, 3), (DENSE, 4, 2), True, (3, 2), ['ANCHORS: scale 8 becomes 3 in the student;',
                                                'ANCHORS: scale 4 becomes 2 in the teacher;']),
    ((RPN, 8, 3), (DENSE, 4, 2), False, (3, None), ['ANCHORS: scale 8 becomes 3 in the student;']),
    (None, (DENSE, 4, 2), True, (None, 2), ['ANCHORS: scale 4 becomes 2 in the teacher;']),
    (None, None, True, (None, None), [])])
def test_anchors_of_one_kind_are_of_one_scale(ours, theirs, trained, scales, words):
    found, said = of_both(*(one and Scale(*one, 'because') for one in (ours, theirs)), trained)
    assert tuple(one and one.new for one in found) == scales
    assert len(said) == len(words) and all(line.startswith(text) for line, text in zip(said, words))


def test_what_an_earlier_run_left_in_the_log_is_no_progress(tmp_path):
    log = tmp_path / 'x.log'
    log.write_text('Epoch(val)   [3][180/188]    eta: 0:00:07  time: 1\nthe end\n')
    before = log.stat().st_size
    assert (last_progress(log, before), tail(log, 1, before)) == ('starting', '')
    assert last_progress(log) == 'val [3][180/188] eta 0:00:07' and tail(log, 1) == '    the end'
    with open(log, 'a') as file:
        file.write('Epoch(train)   [1][ 20/110]  lr: 1e-3  eta: 0:09:00  time: 1\n')
    assert last_progress(log, before) == 'train [1][20/110] eta 0:09:00'


def test_what_other_packages_print_is_no_progress(tmp_path):
    log = tmp_path / 'compare.log'
    log.write_text('creating index...\n')
    before = log.stat().st_size
    assert last_said(log, before) == 'starting'
    with open(log, 'a') as file:
        file.write('evaluating plain ...\nindex created!\n Average Recall (AR) = 0.209\n')
    assert last_said(log, before) == 'evaluating plain ...'
    with open(log, 'a') as file:
        file.write('plain: 80 of 188, 22 s left\nDone.\n')
    assert last_said(log, before) == 'plain: 80 of 188, 22 s left'


def test_a_stage_that_begins_anew_says_why(tmp_path):
    made, source = tmp_path / 'made.json', tmp_path / 'epoch_1.pth'
    for path in (made, source):
        path.write_text('')
    os.utime(source, (2e9, 2e9))
    one = Making('compare', '', ['compare'], str(made), [str(source)])
    assert one.state(overwrite=True) == 'begins anew' and one.why == f'{source} is newer'
