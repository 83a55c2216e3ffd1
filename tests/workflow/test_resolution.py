"""Sizes of images: the student's set by a flag, the teacher's a multiple of it, each made from the file's own pixels.
"""
import re
from pathlib import Path

import data_folders as folders
import pytest
import torch
from conftest import faster_rcnn_cfg
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from small_pairs import in_process, make_pair, write_config

from kd_det.cli import distill as command
from kd_det.cli.command import call
from kd_det.config import load_config
from kd_det.errors import ConfigError
from kd_det.mydata.prepare import prepare
from kd_det.workflow import running
from kd_det.workflow.planning import make_plan
from kd_det.workflow.request import Request
from kd_det.workflow.resolution import enlarged, pipeline_of, set_size, two_views, words

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]


def config(*steps, wrap=lambda dataset: dataset) -> Config:
    """A config whose images pass through ``steps``."""
    loader = dict(dataset=wrap(dict(type='CocoDataset', pipeline=[*LOAD, *steps, dict(type='PackDetInputs')])))
    return Config(dict(train_dataloader=loader, val_dataloader=loader, test_dataloader=loader))


def one(size, keep=True) -> Config:
    return config(dict(type='Resize', scale=size, keep_ratio=keep))


def scales(cfg):
    return [step[key] for step in pipeline_of(cfg.train_dataloader.dataset) for key in ('scale', 'scales', 'max_size')
            if key in step]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """(pair, data): an empty directory, commands in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, 'launch', in_process)
    (tmp_path / 'pair').mkdir()
    yield make_pair(tmp_path / 'pair', 'faster'), str(folders.coco(tmp_path / 'data'))
    MMLogger._instance_dict.clear()


def test_each_network_sees_images_of_its_size(here):
    """The teacher trains at 128x96, the student at 64x48; the distilled run brings both views, its plain control one.
    """
    (teacher, checkpoint, student), data = here
    plan = make_plan(Request(teacher, checkpoint, student, 'out', student_size=(64, 48), teacher_scale=2),
                     prepare(data))
    assert any('2 times the student\'s size, 128x96 where the student sees 64x48' in line for line in plan.decisions)
    plan.write()
    found = {name: load_config(f'out/configs/{name}.py') for name in ('teacher', 'student', 'distilled')}
    for part in ('train', 'val', 'test'):
        steps = {name: pipeline_of(cfg[f'{part}_dataloader'].dataset) for name, cfg in found.items()}
        sizes = {name: next(step.scale for step in own if step.type == 'Resize') for name, own in steps.items()}
        assert sizes == dict(teacher=(128, 96), student=(64, 48), distilled=(64, 48))
    assert found['distilled'].model.teacher.scale_factor == 2
    assert {found[name].train_dataloader.dataset.type for name in ('student', 'teacher')} == {'CocoDataset'}
    with DefaultScope.overwrite_default_scope('mmdet'):
        sample = DATASETS.build(found['distilled'].train_dataloader.dataset)[0]
    small, large = sample['inputs'], sample['data_samples'].teacher_view
    assert [2 * side for side in small.shape[1:]] == list(large.shape[1:])
    fine = torch.nn.functional.interpolate(small[None].float(), scale_factor=2)[0]
    assert (fine - large).abs().mean() > 1  # not the student's image made larger


@pytest.mark.slow
def test_a_run_at_half_the_teachers_size_to_an_exported_student(here, capsys):
    (teacher, checkpoint, student), data = here
    assert call(command, ['--data', data, '--teacher', teacher, checkpoint, '--student', student, '--student-size',
                          '64x48', '--teacher-scale', '2', '--epochs', '1', '--teacher-epochs', '1', '--out',
                          'out']) == 0
    # measured on both views
    assert 'distilled: train the distilled student, epochs: 1, about ' in capsys.readouterr().out
    exported = load_config(str(next(Path('out/exported').glob('*.py'))))
    assert 'TwoView' not in exported.pretty_text and exported.test_dataloader.dataset.pipeline[1].scale == (64, 48)


def test_methods_that_compare_prior_by_prior_are_refused_by_name(here, tmp_path):
    _, data = here
    teacher, checkpoint, student = make_pair(tmp_path, 'paa')
    plan = make_plan(Request(teacher, checkpoint, student, 'out', student_size=(64, 48), teacher_scale=2),
                     prepare(data))
    # not LAD, which such a pair takes by default
    assert plan.configs['distilled'].model.terms[0].loss.type == 'PKDLoss'
    with pytest.raises(ConfigError,
                       match=r'--method lad does not suit this pair: .*scale_factor: found 2.*These do: pkd'):
        make_plan(Request(teacher, checkpoint, student, 'out', method='lad', teacher_scale=2), prepare(data))


@pytest.mark.parametrize('step, wanted', [
    (dict(type='Resize', scale=(64, 48)), [(192, 144)]),
    (dict(type='RandomResize', scale=[(64, 40), (64, 48)], keep_ratio=True), [[(192, 120), (192, 144)]]),
    (dict(type='RandomChoiceResize', scales=[(64, 40), (64, 48)]), [[(192, 120), (192, 144)]]),
    (dict(type='ResizeShortestEdge', scale=48, max_size=64), [144, 192])])
def test_every_kind_of_resize_becomes_larger(step, wanted):
    cfg = config(step)
    assert scales(enlarged(cfg, 3)) == wanted and scales(cfg) != wanted  # a copy


@pytest.mark.parametrize('wrap', [
    lambda dataset: dataset, lambda dataset: dict(type='RepeatDataset', times=3, dataset=dataset),
    lambda dataset: dict(type='RepeatDataset', times=3,
                         dataset=dict(type='ConcatDataset', datasets=[dataset, dataset]))])
def test_a_size_reaches_every_data_set_inside(wrap):
    cfg = config(dict(type='Resize', scale=(128, 96)), dict(type='RandomFlip', prob=0.5), wrap=wrap)
    set_size(cfg, (64, 48), '--student-size')
    text = cfg.pretty_text
    assert '128' not in text and text.count('64') == (6 if 'ConcatDataset' in text else 3)


@pytest.mark.parametrize('steps, name', [
    ([dict(type='RandomChoiceResize', scales=[(64, 48)])], 'RandomChoiceResize'),
    ([dict(type='Resize', scale=(9, 9)), dict(type='RandomCrop', crop_size=(8, 8))], 'RandomCrop'),
    ([dict(type='Resize', scale=(9, 9)), dict(type='Pad', size=(9, 9))], 'Pad'),
    ([dict(type='Resize', scale_factor=0.5)], 'Resize')])
def test_a_size_that_other_numbers_hang_on_is_refused(steps, name):
    with pytest.raises(ConfigError, match=rf'--student-size 64x48: .*{name}.*pipelines of that size instead'):
        set_size(config(*steps), (64, 48), '--student-size')


def test_views_stand_inside_wrappers_that_leave_samples_alone():
    inner = dict(type='CocoDataset', pipeline=[*LOAD, dict(type='Resize', scale=(9, 9)), dict(type='PackDetInputs')])
    made = two_views(dict(type='RepeatDataset', times=2, dataset=inner), 2, '--teacher-scale')
    assert made == dict(type='RepeatDataset', times=2,
                        dataset=dict(type='TwoViewDataset', scale_factor=2, dataset=inner))
    yolox = get_config('mmdet::yolox/yolox_s_8xb8-300e_coco.py').train_dataloader.dataset.to_dict()
    with pytest.raises(ConfigError, match=r'--teacher-scale 2: .*MultiImageMixDataset, which mixes images'):
        two_views(yolox, 2, '--teacher-scale')
    ssd = get_config('mmdet::ssd/ssd300_coco.py').train_dataloader.dataset.dataset.to_dict()
    with pytest.raises(ConfigError, match=r'--teacher-scale 2: .*Expand cannot be repeated at another resolution'):
        two_views(ssd, 2, '--teacher-scale')


@pytest.mark.parametrize('ours, theirs, times, trained, wanted', [
    ((64, 48), (64, 48), 1, True, []),
    ((64, 48), (48, 64), 1, False, []),
    ((64, 48), (128, 96), 2, False, ['2 times the student\'s size, 128x96 where the student sees 64x48']),
    ((64, 48), (128, 96), 1, True, ['is for 128x96; it is trained for 64x48.*--teacher-scale 2 gives it']),
    ((64, 48), (128, 96), 1, False,
     ['is for 128x96; HERE IT SEES 64x48, which it was not trained for.*--teacher-scale 2']),
    ((64, 48), (96, 96), 1, False, ['HERE IT SEES 64x48, which it was not trained for$']),
    ((64, 48), (128, 96), 3, False, ['3 times', 'is for 128x96; HERE IT SEES 192x144'])])
def test_what_is_said_of_sizes(ours, theirs, times, trained, wanted):
    said = words(one(ours), one(theirs), times, trained)
    assert len(said) == len(wanted)
    for line, pattern in zip(said, wanted):
        assert re.search(pattern, line), line


@pytest.mark.parametrize('flags, error, message', [
    (['--student-size', '64'], SystemExit, None), (['--student-size', '64x'], SystemExit, None),
    (['--student-size', '16x64'], ConfigError, '--student-size 16x64: at least 32x32'),
    (['--teacher-scale', '0'], ConfigError, '--teacher-scale 0: at least 1')])
def test_bad_sizes(here, flags, error, message, capsys):
    (teacher, checkpoint, student), data = here
    with pytest.raises(error, match=message):
        call(command, ['--data', data, '--teacher', teacher, checkpoint, '--student', student, '--dry-run', *flags])
    assert message or 'WIDTHxHEIGHT in pixels is expected, such as 320x240' in capsys.readouterr().err


def test_options_and_sizes_meet_in_one_file(here, tmp_path):
    """--cfg-options comes last, and the size does not lose what the user's own data set says."""
    _, data = here
    student = write_config(tmp_path / 'mine.py', faster_rcnn_cfg(8, num_classes=7))
    plan = make_plan(Request(*here[0][:2], student, 'out', student_size=(64, 48),
                             options={'train_dataloader.dataset.filter_cfg.min_size': 3}), prepare(data))
    seen = plan.configs['student'].train_dataloader.dataset
    assert seen.filter_cfg == dict(filter_empty_gt=False, min_size=3) and seen.pipeline[2].scale == (64, 48)
