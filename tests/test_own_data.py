"""The key ``data``: one place for root and classes sets every place, and what is dumped is plain."""
import argparse
import json
import shutil

import pytest
import torch
from conftest import build, faster_rcnn_cfg, run_tool, save_checkpoint
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

from kd_det.cli import plan
from kd_det.cli.changes import changed_config
from kd_det.cli.command import fill
from kd_det.config import load_config
from kd_det.errors import ConfigError, DataError
from kd_det.own_data import class_numbers

CLASSES = ('ring', 'disc', 'square')


@pytest.fixture
def place(tiny_coco, tmp_path):
    """The tiny set elsewhere, with other files, folders and a third class before its own."""
    root = tmp_path / 'mine'
    shutil.copytree(tiny_coco / 'images', root / 'photos')
    for part, name in (('train', 'train.json'), ('val', 'valid.json')):
        coco = json.loads((tiny_coco / 'annotations' / f'{part}.json').read_text())
        coco['categories'].insert(0, dict(id=3, name='ring'))
        (root / name).write_text(json.dumps(coco))
    return root


def write(tmp_path, base: str, **data) -> str:
    path = tmp_path / 'own.py'
    path.write_text(f'_base_ = {base!r}\ndata = {data!r}\n')
    return str(path)


@pytest.mark.parametrize('name, heads', [
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', ['roi_head.bbox_head']),
    ('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco',
     [*(f'roi_head.bbox_head.{i}' for i in range(3)), 'roi_head.mask_head']),
    ('seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1',
     ['roi_head.bbox_head', 'roi_head.bbox_head.cls_predictor_cfg', 'roi_head.bbox_head.loss_cls',
      'roi_head.mask_head']),
    ('ssd/ssd300_coco', ['bbox_head']),
    ('yolox/yolox_s_8xb8-300e_coco', ['bbox_head'])])
def test_heads_of_every_kind(name, heads):
    model = get_config(f'mmdet::{name}.py').model
    model.teacher = dict(bbox_head=dict(num_classes=9))  # a teacher's own are its own business
    found = class_numbers(model, 3)
    assert {path.removesuffix('.num_classes') for path in found if 'cls_predictor_cfg' not in path} \
        == {head for head in heads if 'cls_predictor_cfg' not in head}
    cfg = Config(dict(model=model))
    cfg.merge_from_dict({f'model.{path}': number for path, number in found.items()})
    assert class_numbers(cfg.model, 3) == {} and cfg.model.teacher.bbox_head.num_classes == 9
    if 'rpn_head' in model:
        assert 'num_classes' not in model.rpn_head or model.rpn_head.num_classes == 1


def test_a_head_whose_config_is_silent_has_its_constructors_number():
    """MMDetection's default is COCO's 80; a head without the argument is left alone."""
    heads = dict(bbox_head=dict(type='Shared2FCBBoxHead'),
                 mask_head=[dict(type='mmdet.FCNMaskHead'), dict(type='HTCMaskHead')])
    assert set(class_numbers(dict(roi_head=heads), 3)) == {
        'roi_head.bbox_head.num_classes', 'roi_head.mask_head.0.num_classes', 'roi_head.mask_head.1.num_classes'}
    assert class_numbers(dict(bbox_head=dict(type='EmbeddingRPNHead')), 3) == {}


def test_one_key_sets_every_place(place, tmp_path):
    """A COCO recipe by its two keys; the dump is plain and reads back as the same config."""
    path = write(tmp_path, 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', root=str(place), images='photos')
    cfg = load_config(path)
    for part, name in (('train', 'train.json'), ('val', 'valid.json'), ('test', 'valid.json')):
        dataset = cfg[f'{part}_dataloader'].dataset
        assert (dataset.data_root, dataset.ann_file, dataset.data_prefix.img) == (f'{place}/', name, 'photos/')
        assert dataset.metainfo == dict(classes=CLASSES) and len(dataset.pipeline) > 2
        if part != 'train':
            assert cfg[f'{part}_evaluator'].ann_file == f'{place}/{name}'
    assert cfg.model.roi_head.bbox_head.num_classes == 3 and cfg.data_root == f'{place}/' and 'data' not in cfg
    cfg.dump(tmp_path / 'dumped.py')
    assert load_config(str(tmp_path / 'dumped.py')).to_dict() == cfg.to_dict()


def test_options_and_flags_reach_the_key(run_config, place, tmp_path):
    plain = run_config(faster_rcnn_cfg())
    cfg = load_config(plain, {'data.train': 'train.json', 'data.val': 'train.json', 'data.images': 'photos'},
                      data_root=str(place), classes='auto')
    assert cfg.val_evaluator.ann_file == f'{place}/train.json' and cfg.model.roi_head.bbox_head.num_classes == 3
    cfg = load_config(plain, {'data.images': 'photos'}, data_root=str(place), classes=['disc'])
    assert cfg.train_dataloader.dataset.metainfo.classes == ('disc',)
    names = tmp_path / 'classes.txt'
    names.write_text('square\n disc \n\n')
    cfg = load_config(plain, {'data.images': 'photos'}, data_root=str(place), classes=str(names))
    assert cfg.train_dataloader.dataset.metainfo.classes == ('square', 'disc')


def test_sets_of_other_kinds_become_coco(place, tmp_path):
    """VOC's repeated, joined sets and its metric; MMDetection's class-balanced wrapper stays."""
    path = write(tmp_path, 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', root=str(place), images='photos')
    cfg = load_config(path)
    repeated = cfg.train_dataloader.dataset
    assert repeated.type == 'RepeatDataset' and repeated.dataset.type == 'CocoDataset'
    assert repeated.dataset.metainfo.classes == CLASSES and repeated.dataset.pipeline
    assert cfg.val_evaluator == dict(type='CocoMetric', metric='bbox', classwise=True, ann_file=f'{place}/valid.json')
    assert cfg.model.roi_head.bbox_head.num_classes == 3


def test_nothing_is_read_where_all_is_given(tmp_path):
    """A resolved recipe is needed where the data is not: for export, or to look at it."""
    path = write(tmp_path, 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', root='nowhere', classes=['a', 'b'],
                 train='t.json', val='/else/v.json', images=dict(train='t', val='v'))
    cfg = load_config(path)
    assert cfg.model.bbox_head.num_classes == 2 and cfg.test_evaluator.ann_file == '/else/v.json'
    assert cfg.test_dataloader.dataset.data_prefix.img == 'v/'


# -- images without labels ----------------------------------------------------------------------------------------
STREAM = "unlabelled_dataloader = dict(batch_size=2, dataset={dataset!r})\n"


def with_stream(tmp_path, dataset, **data) -> str:
    path = write(tmp_path, 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', images='photos', **data)
    with open(path, 'a') as file:
        file.write(STREAM.format(dataset=dataset))
    return path


PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 48)), dict(type='PackDetInputs')]
LISTED = dict(type='UnlabelledImages', data_root='data/other/', ann_file='annotations/rest.json',
              data_prefix=dict(img='train2017/'), pipeline=PIPELINE)
FOLDER = dict(type='UnlabelledImages', data_prefix=dict(img='/other/more/'), pipeline=PIPELINE)


@pytest.mark.parametrize('dataset, there, asked, ann_file, folder', [
    (LISTED, 'annotations/rest.json', None, 'annotations/rest.json', 'photos/'),  # as the config calls it
    (LISTED, 'rest_of_mine.json', 'rest_of_mine.json', 'rest_of_mine.json', 'photos/'),
    (FOLDER, 'more/', 'more', '', 'more/'),
    (FOLDER, 'unlabelled/', None, '', 'unlabelled/'),                               # of the usual places
    (dict(type='RepeatDataset', times=2, dataset=LISTED), 'unlabelled.json', None, 'unlabelled.json', 'photos/'),
    (dict(LISTED, type='CocoDataset', filter_cfg=dict(min_size=2)), 'unlabelled/', None, '', 'unlabelled/')])
def test_the_key_sets_images_without_labels(place, tmp_path, dataset, there, asked, ann_file, folder):
    """They are read from there: as many as the folder or the file has; pipelines and wrappers stay."""
    names = sorted(path.name for path in (place / 'photos').iterdir())[:3]
    if there.endswith('/'):
        (place / there).mkdir(parents=True)
        for name in names:
            shutil.copy(place / 'photos' / name, place / there)
    else:
        (place / there).parent.mkdir(exist_ok=True)
        (place / there).write_text(json.dumps(dict(images=[dict(id=i, file_name=name)
                                                           for i, name in enumerate(names)])))
    asked = {} if asked is None else dict(unlabelled=asked)
    found = load_config(with_stream(tmp_path, dataset, root=str(place), **asked)).unlabelled_dataloader
    assert found.batch_size == 2 and found.dataset.type == ('RepeatDataset' if 'times' in dataset
                                                            else 'UnlabelledImages')
    inner = found.dataset.get('dataset', found.dataset)
    assert (inner.data_root, inner.ann_file, inner.data_prefix.img) == (f'{place}/', ann_file, folder)
    assert inner.pipeline == PIPELINE and 'filter_cfg' not in inner
    with DefaultScope.overwrite_default_scope('mmdet'):
        read = DATASETS.build(inner)
    paths = [read.get_data_info(i)['img_path'] for i in range(len(read))]
    assert paths == [f'{place}/{folder}{name}' for name in names]


def test_images_without_labels_that_are_not_there(place, tmp_path):
    """The labelled images are not taken for them: those for evaluation are among them."""
    with pytest.raises(DataError, match=r'data\.unlabelled: not given, and .*/mine/. holds none of '
                                        r'annotations/rest\.json, unlabelled\.json.*data\.unlabelled=\.\.\.'):
        load_config(with_stream(tmp_path, LISTED, root=str(place)))
    with pytest.raises(DataError, match=r'data\.unlabelled: .*holds none of nowhere;'):
        load_config(with_stream(tmp_path, LISTED, root=str(place), unlabelled='nowhere'))
    (place / 'empty').mkdir()
    plain = write(tmp_path, 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', root=str(place), images='photos',
                  unlabelled='empty')
    with pytest.raises(ConfigError,
                       match=r"data\.unlabelled: found 'empty', and the config has no unlabelled_dataloader"):
        load_config(plain)


def test_another_sets_colours_do_not_stay(place, tmp_path):
    """MMDetection's visualizer needs a colour for every class; a shipped config has as many as its own set."""
    cfg = load_config(write(tmp_path, 'kd_det::faster_rcnn/faster-rcnn_lite0_fpn-c64_8e_vehicles-208x208.py',
                            root=str(place), images='photos', classes=list('abcdefg')))
    assert cfg.train_dataloader.dataset.metainfo == dict(classes=tuple('abcdefg'))


@pytest.mark.parametrize('data, words', [
    (dict(roots='x'), r"data: found .*its keys are root, classes"),
    (dict(root=3), r'data\.root: found 3'),
    (dict(root='nowhere'), r"data\.root: the folder 'nowhere/' does not exist"),
    (dict(train='none.json'), r'no annotation file .*none\.json'),
    (dict(train='broken.json'), r'broken\.json.* is not JSON'),
    (dict(train='list.json'), r"list\.json.* is not in COCO's format"),
    (dict(val=7), r'data\.val: found 7'),
    (dict(classes=[]), r'data\.classes: found \[\]'),
    (dict(classes=['a', 'a']), r'no two alike'),
    (dict(classes='nofile'), r"data\.classes: found 'nofile'"),
    (dict(images='photos', classes='auto', train='twice.json'), r'twice\.json.*no two alike'),
    (dict(images=dict(training='x')), r"data\.images: found the keys \['training'\]")])
def test_bad_values_name_the_key_and_what_would_do(place, tmp_path, data, words):
    (place / 'broken.json').write_text('{')
    (place / 'list.json').write_text('[]')
    (place / 'twice.json').write_text('{"images": [], "categories": [{"name": "a"}, {"name": "a"}]}')
    data = {'root': str(place), 'images': 'photos', **data}
    path = write(tmp_path, 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', **data)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_what_is_not_found_is_listed(place, tmp_path):
    path = write(tmp_path, 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', root=str(place))
    with pytest.raises(DataError, match=r"data\.images: .*train_0\.png.*images/.*data\.images=\.\.\."):
        load_config(path)
    (place / 'valid.json').rename(place / 'second.json')
    with pytest.raises(DataError, match=r'data\.val: not given.*second\.json, train\.json; name one'):
        load_config(path)


def test_a_base_that_is_not_there_is_an_error_in_words(tmp_path):
    path = write(tmp_path, './nowhere.py')
    with pytest.raises(ConfigError, match=r'own\.py.* cannot be read: .*nowhere\.py.*_base_'):
        load_config(path)
    with pytest.raises(ConfigError, match=r'has no such config'):
        load_config('mmdet::faster_rcnn/nowhere.py')


def test_train_resume_and_test_on_another_set(run_config, place, tmp_path):
    """A distilled run by --data-root and --classes: the teacher has its checkpoint's classes; the dump carries on."""
    teacher = faster_rcnn_cfg(width=4, num_classes=3)
    checkpoint = save_checkpoint(build(teacher), tmp_path / 'teacher.pth', CLASSES)
    teacher_config = run_config(faster_rcnn_cfg(width=4), 'teacher.py')  # its config says two classes
    model = faster_rcnn_cfg()
    model.update(type='FasterRCNNDistiller', student_type='FasterRCNN', rcnn_distill=dict(), hints=[],
                 teacher=dict(config=teacher_config, checkpoint=checkpoint, check=0))
    config, run = run_config(model), str(tmp_path / 'run')
    flags = ['--data-root', str(place), '--classes', 'auto']
    options = ['data.images=photos', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    run_tool('train', config, '--work-dir', run, *flags, '--cfg-options', *options)
    state = torch.load(f'{run}/epoch_1.pth', weights_only=True)['state_dict']
    assert state['roi_head.bbox_head.fc_cls.weight'].shape[0] == 4
    dumped = load_config(f'{run}/config.py')
    assert 'data' not in dumped and dumped.model.teacher.cfg_options == {'model.roi_head.bbox_head.num_classes': 3}
    run_tool('train', config, '--work-dir', run, '--resume', *flags, '--cfg-options', options[0])
    run_tool('test', f'{run}/config.py', f'{run}/epoch_2.pth', '--work-dir', str(tmp_path / 'test'))
    other = save_checkpoint(build(teacher), tmp_path / 'other.pth', ('a', 'b', 'c'))
    with pytest.raises(ConfigError, match=r"trained on the classes \('a', 'b', 'c'\)"):
        run_tool('train', config, '--work-dir', str(tmp_path / 'no'), *flags, '--teacher', teacher_config, other,
                 '--cfg-options', options[0])


def test_an_option_swaps_the_backbone_of_another_student(run_config):
    """What a student leaves to its backbone is filled after the option, and options of distillation stay."""
    student = faster_rcnn_cfg(width=4)
    student.neck.in_channels = 'auto'
    distil = faster_rcnn_cfg()
    distil.update(type='Distiller', student_type='FasterRCNN', terms=[], teacher=dict(config='none.py', checkpoint='x'))
    parser = fill(argparse.ArgumentParser(), plan)
    args = parser.parse_args([run_config(distil), '--student', run_config(student, 'student.py'), '--cfg-options',
                              'model.backbone.base_channels=16', 'model.teacher.check=3', 'train_cfg.max_epochs=9'])
    cfg = changed_config(args)
    assert cfg.model.neck.in_channels == [16, 32, 64, 128] and cfg.model.teacher.check == 3
    assert cfg.train_cfg.max_epochs == 9
