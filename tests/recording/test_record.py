"""``kd-det record`` and runs that record: what is written, what a later run asks, what is refused."""
import re

import pytest
import torch
from conftest import faster_rcnn_cfg, run_tool
from dense_detectors import dense_cfg

from kd_det.cli import record as record_command
from kd_det.cli.command import call
from kd_det.config import load_config
from kd_det.engine.training import prepared_runner
from kd_det.errors import ConfigError
from kd_det.sources.shards import Shards

TERMS = [dict(type='Hint', layer='neck'), dict(type='RPNDistillation')]
FLIP = "dict(type='RandomFlip', prob=0.5)"


@pytest.fixture
def distil(run_config, teacher_checkpoint):
    """Writes a distil config; ``replace`` exchanges text in it."""
    def write(name='config.py', replace=(), extra='', changes=None, **teacher):
        model = faster_rcnn_cfg()
        model.update(student_type=model.type, type='Distiller', terms=TERMS, teacher=dict(
            config=teacher_checkpoint[0].to_dict(), checkpoint=teacher_checkpoint[1], check=0, **teacher))
        model.update(changes or {})
        path = run_config(model, name, extra)
        with open(path, encoding='utf-8') as file:
            text = file.read()
        for old, new in replace:
            assert old in text
            text = text.replace(old, new)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path
    return write


def record(*arguments):
    return call(record_command, [*arguments, '--device', 'cpu'])


def views_in(folder):
    shards = Shards(str(folder), 2**30, 'k')
    shards.scan()
    return len(shards)


def weights_after(config, work_dir, *options):
    run_tool('train', config, '--work-dir', str(work_dir), *options)
    state = torch.load(work_dir / 'epoch_2.pth', map_location='cpu', weights_only=False)['state_dict']
    return {name: value for name, value in state.items() if value.is_floating_point()}


def test_a_run_records_and_the_next_one_never_asks(distil, tmp_path):
    folder = tmp_path / 'record'
    config = distil(record=str(folder))
    first = weights_after(config, tmp_path / 'a', '--cfg-options', 'log_level=INFO')
    text = next((tmp_path / 'a').rglob('*.log')).read_text()
    said = re.findall(r'(\d+) answers read, (\d+) asked', text)
    assert [sum(map(int, pair)) for pair in said] == [8, 8] and said[0] == ('0', '8')
    assert 'KiB a view, 16 views' in text
    assert record(config) == 0 and views_in(folder) == 16  # what the two epochs did not mirror
    strict = distil('strict.py', record=dict(folder=str(folder), missing='error'))
    second = weights_after(strict, tmp_path / 'b')
    assert all((first[name] - second[name]).abs().max() < 1e-3 for name in first)


def test_recording_goes_on_where_it_stopped_and_in_parts(distil, tmp_path, capsys):
    folder, config = tmp_path / 'record', distil()
    assert record(config, '--out', str(folder), '--shard', '1/2') == 0
    assert views_in(folder) == 8
    assert record(config, '--out', str(folder), '--shard', '2/2') == 0
    assert views_in(folder) == 16 and len(list(folder.iterdir())) == 2
    capsys.readouterr()
    assert record(config, '--out', str(folder)) == 0
    said = capsys.readouterr().out
    assert '0 are new' in said and f"model.teacher.record='{folder}'" in said


def test_the_batches_of_a_seeds_epochs_are_what_its_run_sees(distil, tmp_path):
    folder = tmp_path / 'record'
    assert record(distil(), '--out', str(folder), '--epochs', '2') == 0
    assert 8 <= views_in(folder) < 16
    weights_after(distil('strict.py', record=dict(folder=str(folder), missing='error')), tmp_path / 'b')


@pytest.mark.parametrize('transform', ["dict(type='PhotoMetricDistortion')",
                                       "dict(type='RandomResize', scale=(128, 96), ratio_range=(0.5, 1))"])
def test_augmentation_other_than_mirroring_is_refused_by_name(distil, tmp_path, transform):
    config = distil(record=str(tmp_path / 'r'), replace=[(FLIP, f'{FLIP}, {transform}')])
    name = re.match(r"dict\(type='(\w+)'", transform)[1]
    for start in (lambda: run_tool('train', config, '--work-dir', str(tmp_path / 'w')), lambda: record(config)):
        with pytest.raises(ConfigError, match=f'pipeline has {name}'):
            start()
    assert not (tmp_path / 'r').exists()


def test_images_without_labels_are_looked_at_too(distil, tmp_path):
    extra = '''
unlabelled_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True))
unlabelled_dataloader['dataset'] = dict(
    type='UnlabelledImages', data_root=data_root, data_prefix=dict(img='images/'),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 96), keep_ratio=True),
              dict(type='PhotoMetricDistortion'), dict(type='PackDetInputs')])
'''
    config = distil(extra=extra, record=str(tmp_path / 'r'), changes=dict(terms=TERMS[:1], unlabelled=dict(weight=1.0)))
    with pytest.raises(ConfigError, match=r'unlabelled_dataloader\.dataset\.pipeline has PhotoMetricDistortion'):
        run_tool('train', config, '--work-dir', str(tmp_path / 'w'))


@pytest.mark.parametrize('replace, message', [
    ((("dict(type='PackDetInputs')]\ntest", "dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape'))]\ntest"),),
     r"meta_keys has no \['flip', 'flip_direction'\]"),
    ((("'pad_size_divisor': 32", "'pad_size_divisor': 32, 'batch_augments': [{'type': 'BatchSyncRandomResize', "
       "'random_size_range': (64, 128)}]"),), 'BatchSyncRandomResize')])
def test_samples_of_which_nothing_can_be_kept(distil, tmp_path, replace, message):
    with pytest.raises(ConfigError, match=message):
        record(distil(replace=replace), '--out', str(tmp_path / 'r'))


def test_canvases_that_depend_on_the_batch(distil, tmp_path, tiny_coco):
    """Images of two shapes: no view can be recorded by itself, the run's own batches can, and one fixed canvas can."""
    import json
    import shutil

    import cv2
    root = tmp_path / 'data'
    shutil.copytree(tiny_coco, root)
    cv2.imwrite(str(root / 'images' / 'train_3.png'), cv2.imread(str(root / 'images' / 'train_3.png'))[:60])
    notes = json.loads((root / 'annotations' / 'train.json').read_text())
    notes['images'][3]['height'] = 60
    (root / 'annotations' / 'train.json').write_text(json.dumps(notes))
    config = distil(replace=[(f'{tiny_coco}/', f'{root}/')])
    with pytest.raises(ConfigError, match=r'2 canvases \(64x128, 96x128\).*size=\(96, 128\).*--epochs N'):
        record(config, '--out', str(tmp_path / 'r'))
    assert record(config, '--out', str(tmp_path / 'r'), '--epochs', '1') == 0
    fixed = distil('fixed.py', replace=[(f'{tiny_coco}/', f'{root}/'), (
        "'pad_size_divisor': 32", "'pad_size_divisor': 32, 'batch_augments': [{'type': 'BatchFixedSizePad', "
                                  "'size': (96, 128)}]")])
    assert record(fixed, '--out', str(tmp_path / 'f')) == 0 and views_in(tmp_path / 'f') == 16


@pytest.mark.parametrize('size', ['40KB', '400KB'])
def test_an_estimate_beyond_the_bound_is_refused_before_anything_is_written(distil, tmp_path, capsys, size):
    with pytest.raises(ConfigError, match=r'--max-disk: teacher needs about .* for 16 views'):
        record(distil(), '--out', str(tmp_path / 'r'), '--max-disk', size)
    assert not (tmp_path / 'r').exists() and '16 views' in capsys.readouterr().out


@pytest.mark.parametrize('arguments, message', [
    ((), '--out: missing'), (('--out', 'x', '--shard', '3/2'), '--shard: found 3/2'),
    (('--out', 'x', '--shard', 'a'), 'i/n'),
    (('--out', 'x', '--epochs', '0'), '--epochs'),
    (('--out', 'x', '--epochs', '1', '--cfg-options', 'randomness.seed=None'), 'randomness.seed')])
def test_arguments_that_cannot_be_meant(distil, arguments, message):
    with pytest.raises(ConfigError, match=message):
        record(distil(), *arguments)


def test_a_plain_config_has_nothing_to_record(run_config):
    with pytest.raises(ConfigError, match='no frozen teacher'):
        record(run_config(faster_rcnn_cfg()), '--out', 'x')


def test_a_teacher_of_which_an_epoch_asked_nothing_is_let_go(distil, tmp_path):
    config = distil(record=str(tmp_path / 'r'))
    assert record(config) == 0
    cfg = load_config(config)
    cfg.work_dir = str(tmp_path / 'w')
    runner = prepared_runner(cfg)
    teacher = runner.model.teacher
    _ = teacher.network
    assert not any(p.is_meta for p in teacher.model.parameters())
    runner.train()
    assert all(p.is_meta for p in teacher.model.parameters())


# -- boxes ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def boxes(run_config, teacher_checkpoint):
    """Writes a config in which a dense student learns from the final boxes of a two-stage teacher."""
    def write(name='boxes.py', steps=FLIP, **teacher):
        model = dense_cfg('gfl')
        model.data_preprocessor = faster_rcnn_cfg().data_preprocessor
        whole = dict(model=teacher_checkpoint[0].to_dict(), test_dataloader=dict(dataset=dict(pipeline=[
            dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 96), keep_ratio=True),
            dict(type='PackDetInputs')])))
        model.update(student_type=model.type, type='Distiller',
                     terms=[dict(type='PseudoLabel', score_thr=0.2, soft={})], teacher=dict(
                         config=whole, checkpoint=teacher_checkpoint[1], check=0, **teacher))
        path = run_config(model, name)
        with open(path, encoding='utf-8') as file:
            text = file.read()
        assert FLIP in text
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text.replace(FLIP, steps))
        return path
    return write


FREE = (f"{FLIP}, dict(type='RandomResize', scale=(128, 96), ratio_range=(0.7, 1.3), keep_ratio=True), "
        "dict(type='Rotate', prob=0.5), dict(type='PhotoMetricDistortion')")
CROP = "dict(type='RandomCrop', crop_size=(80, 100))"


def test_boxes_are_recorded_once_an_image_and_follow_any_augmentation(boxes, tmp_path, capsys):
    """By two machines; then a run that crops, rotates and resizes at random asks nothing of the teacher."""
    folder = tmp_path / 'record'
    assert record(boxes(), '--out', str(folder), '--shard', '1/2') == 0 and views_in(folder) == 4
    assert record(boxes(steps=FREE), '--out', str(folder), '--shard', '2/2') == 0 and views_in(folder) == 8
    assert record(boxes(), '--out', str(folder)) == 0 and '8 were there, 0 are new' in capsys.readouterr().out
    strict = boxes('strict.py', f'{FREE}, {CROP}', record=dict(folder=str(folder), missing='error'))
    run_tool('train', strict, '--work-dir', str(tmp_path / 'a'), '--cfg-options', 'log_level=INFO')
    text = next((tmp_path / 'a').rglob('*.log')).read_text()
    assert re.findall(r'(\d+) answers read, (\d+) asked', text) == [('8', '0')] * 2
    assert 'loss_pseudo_soft' in text and 'boxes, with class distributions, are of whole images' in text


def test_a_run_records_boxes_as_it_goes(boxes, tmp_path):
    config = boxes(steps=FREE, record=str(tmp_path / 'record'))
    run_tool('train', config, '--work-dir', str(tmp_path / 'a'), '--cfg-options', 'log_level=INFO')
    text = next((tmp_path / 'a').rglob('*.log')).read_text()
    assert re.findall(r'(\d+) answers read, (\d+) asked', text) == [('0', '8'), ('8', '0')]


def test_what_does_not_say_where_it_puts_a_box_is_refused(boxes, tmp_path):
    config = boxes(steps=f"{FLIP}, dict(type='Expand')", record=str(tmp_path / 'r'))
    for start in (lambda: run_tool('train', config, '--work-dir', str(tmp_path / 'w')), lambda: record(config)):
        with pytest.raises(ConfigError, match=r'teacher\.record: train_dataloader\.dataset\.pipeline has Expand'):
            start()
    assert not (tmp_path / 'r').exists()
