"""What is wrong with a data set is said before the first step, with the file, the entries and what would do."""
import copy
import json
import os
import re
import shlex
import shutil

import cv2
import hard_images
import numpy as np
import pytest
from conftest import RUN_CONFIG, faster_rcnn_cfg, run_tool
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from kd_det.cli.main import parser
from kd_det.config import set_data_root
from kd_det.engine.annotation_check import check_annotations
from kd_det.engine.data_check import check_data
from kd_det.engine.object_count import count_objects
from kd_det.engine.training import prepared_runner
from kd_det.errors import ConfigError, DataError


@pytest.fixture(scope='module')
def sound(tiny_coco):
    """A config whose data are right."""
    return Config.fromstring(RUN_CONFIG.format(root=f'{tiny_coco}/', model=faster_rcnn_cfg().to_dict()), '.py')


@pytest.fixture
def broken(tiny_coco, tmp_path, sound):
    """A config on a copy of the data set after ``edit(coco, root)`` of one annotation file."""
    def make(edit, split='train', **extra):
        root = tmp_path / 'broken'
        shutil.copytree(tiny_coco, root)
        path = root / 'annotations' / f'{split}.json'
        coco = json.loads(path.read_text())
        edit(coco, root)
        if path.exists():
            path.write_text(json.dumps(coco))
        cfg = copy.deepcopy(sound)
        cfg.update(extra)
        set_data_root(cfg, str(root))
        return cfg
    return make


def notes(change):
    """An edit of every annotation."""
    return lambda coco, root: [note.update(change(note)) for note in coco['annotations']]


def without(kind, field, count=1):
    return lambda coco, root: [entry.pop(field) for entry in coco[kind][:count]]


def sizes(width, height):
    return lambda coco, root: [image.update(width=width, height=height) for image in coco['images']]


def corners(note):
    x, y, width, height = note['bbox']
    return dict(bbox=[x, y, x + width, y + height])


def upright(coco, root):
    """Image 0 as a camera held upright stores it; the annotation file has the stored size."""
    path = root / 'images' / 'train_0.png'
    path.unlink()
    hard_images.save(root / 'images' / 'train_0.jpg', 'turned')
    coco['images'][0].update(file_name='train_0.jpg', width=48, height=64)
    for note in [note for note in coco['annotations'] if note['image_id'] == 0]:
        note.update(bbox=[2, 50, 40, 10])


def damaged(name, length):
    return lambda coco, root: os.truncate(root / 'images' / name, length)


def single(coco, root):
    coco['images'] = coco['images'][:1]
    coco['annotations'] = [note for note in coco['annotations'] if note['image_id'] == 0]


ERRORS = [
    (lambda coco, root: shutil.rmtree(root / 'images'), r'data_prefix.img: the folder .*images'),
    (lambda coco, root: (root / 'images' / 'train_0.png').unlink(), r"1 of the 8 images looked up.*train_0.png"),
    (lambda coco, root: (root / 'annotations' / 'train.json').unlink(), r'ann_file: .*train.json.* does not exist'),
    (lambda coco, root: coco['images'].clear(), 'lists no images'),
    (lambda coco, root: coco.pop('images'), 'not in COCO format'),
    (lambda coco, root: coco.update(images=dict(a=1)), '"images" must be a list'),
    (lambda coco, root: coco['categories'][1].update(name='box'),
     r"has no \['square'\]; its categories are \['disc', 'box'\]"),
    # boxes
    (lambda coco, root: coco['annotations'][0].update(bbox=[3, 4, 0, 9]),
     r'1 boxes .* no area, e.g. annotations \[1\]'),
    (lambda coco, root: coco['annotations'][0].update(bbox=[3, 4, float('nan'), 9]), 'four finite numbers'),
    (lambda coco, root: coco['annotations'][0].update(bbox=['3', 4, 5, 9]), r"has bbox \['3', 4, 5, 9\]; four finite"),
    (lambda coco, root: coco['annotations'][0].update(bbox=None), 'has bbox None; four finite'),
    (notes(corners), r'look like corners \[x1, y1, x2, y2\]: as .* leave their image'),
    (notes(lambda note: dict(bbox=[note['bbox'][0] + 500, *note['bbox'][1:]])),
     r'no object is left to train on: .*disc \d+ of \d+ \(\d+ outside the image as its width and height are stated\)'),
    # references
    (lambda coco, root: coco['annotations'][0].update(image_id=99), 'is of image 99, which the file does not list'),
    (lambda coco, root: coco['annotations'][0].update(image_id='0'), r"'0', which .*there is 0, which is int, not str"),
    (lambda coco, root: coco['annotations'][0].update(category_id=7),
     r'1 of 21 annotations have a category_id .*\[1, 2\]: 7'),
    (notes(lambda note: dict(category_id=str(note['category_id']))),
     r"21 of 21 annotations have a category_id .*\('?.* times\).*there is \d, which is int, not "
     r"str.*unknown_categories"),
    # fields
    (without('annotations', 'id'), r"1 of 21 annotations have no 'id', the first is annotations\[0\]"),
    (without('annotations', 'area', 3), r"3 of 21 annotations have no 'area'.*width \* height"),
    (without('annotations', 'image_id'), "1 of 21 annotations have no 'image_id'"),
    (without('annotations', 'bbox'), "1 of 21 annotations have no 'bbox'"),
    (without('annotations', 'category_id'), "1 of 21 annotations have no 'category_id'"),
    (without('images', 'width', 8), "8 of 8 images have no 'width'"),
    (without('images', 'file_name'), "1 of 8 images have no 'file_name'"),
    (without('categories', 'name'), "1 of 2 categories have no 'name'"),
    (lambda coco, root: coco['annotations'][1].update(id=1),
     r"1 ids of its annotations stand there twice, e.g. \['1'\]"),
    (lambda coco, root: coco['images'][1].update(id=0), r'1 ids of its images stand there twice'),
    (lambda coco, root: coco['categories'].append(dict(id=9, name='disc')), r"categories \['disc'\] stand there twice"),
    (lambda coco, root: coco['annotations'][0].update(area='12'), "area '12'; a number"),
    (lambda coco, root: coco['images'][0].update(width='128'), "width '128' and height 96; numbers of pixels"),
    (lambda coco, root: coco['images'][0].update(height=0), 'width 128 and height 0; numbers of pixels'),
    # images
    (sizes(64, 48), r'8 of the 8 images .*train_0.png is stated as 64x48 and decoded as 128x96.*image_sizes'),
    (upright, r'train_0.jpg is stated as 48x64 and decoded as 64x48.*1 have width and height swapped.*color_ignore'),
    (damaged('train_3.png', 0), r'train_3.png: it is empty \(0 bytes\)'),
    (damaged('train_3.png', 2000), r'train_3.png: it was cut off or is damaged'),
    (lambda coco, root: (root / 'images' / 'train_3.png').write_text('<html>'), 'train_3.png: it is no image'),
    # nothing left
    (notes(lambda note: dict(iscrowd=1)), r'no object is left to train on: .*\d+ crowd'),
    (lambda coco, root: coco['annotations'].clear(), 'no object is left to train on'),
    # labels
    (lambda coco, root: coco['categories'].reverse(), r"has its categories in the order \('square', 'disc'\)"),
]


@pytest.mark.parametrize('edit, words', ERRORS, ids=[words[:40] for _, words in ERRORS])
def test_bad_data_is_an_error_in_words(broken, edit, words):
    with pytest.raises(DataError, match='(?s)' + words) as error:
        check_data(broken(edit), ('train_dataloader',))
    assert 'train_dataloader.dataset' in str(error.value)


def test_good_data_is_counted_by_class(broken):
    found = check_data(broken(lambda coco, root: None), ('train_dataloader', 'val_dataloader', 'test_dataloader'))
    assert [level for level, _ in found] == ['info'] * len(found)
    assert re.fullmatch(r'train_dataloader.dataset: 8 images, 1 of them without objects; 21 objects: disc \d+, square '
                        r'\d+',
                        found[0][1])
    assert sum(map(int, re.findall(r'(?:disc|square) (\d+)', found[0][1]))) == 21


@pytest.mark.parametrize('edit, words', [
    (lambda coco, root: [note.update(iscrowd=1) for note in coco['annotations'][:8]],
     r'8 objects of the annotation file are left out: (disc|square) \d of \d+ \(\d crowd\), (disc|square) \d of'),
    (lambda coco, root: [note.update(ignore=1) for note in coco['annotations'] if note['category_id'] == 1],
     r'no object at all of disc'),
    (lambda coco, root: [note.update(bbox=[5, 5, 0.5, 9]) for note in coco['annotations'][:8]],
     r'\d thinner than a pixel'),
    (lambda coco, root: [note.update(area=0) for note in coco['annotations'][:8]], r'\d of area 0')])
def test_what_is_left_out_is_a_warning_while_enough_remains(broken, edit, words):
    found = check_data(broken(edit), ('train_dataloader',))
    assert any(level == 'warning' and re.search(words, text) for level, text in found), found


def test_a_few_crowds_are_no_warning(broken):
    found = check_data(broken(lambda coco, root: coco['annotations'][0].update(iscrowd=1)), ('train_dataloader',))
    assert [level for level, _ in found] == ['info', 'info']
    assert '1 objects of the annotation file are left out' in found[1][1]


@pytest.mark.parametrize('policy, edit', [
    ('zero_size_boxes', lambda coco, root: coco['annotations'][0].update(bbox=[3, 4, 0, 9])),
    ('image_sizes', lambda coco, root: coco['images'][0].update(width=120)),
    ('unknown_categories', lambda coco, root: coco['annotations'][0].update(category_id=7))])
def test_what_can_be_skipped(broken, policy, edit):
    cfg = broken(edit)
    with pytest.raises(DataError, match=policy):
        check_data(cfg, ('train_dataloader',))
    cfg.data_check = {policy: 'skip'}
    assert any(level == 'warning' for level, _ in check_data(cfg, ('train_dataloader',)))
    cfg.data_check = dict(zero_boxes='skip')
    with pytest.raises(ConfigError, match='zero_size_boxes, image_sizes, unknown_categories'):
        check_data(cfg, ('train_dataloader',))


def test_boxes_that_leave_their_image_a_little_are_no_corners(broken):
    def beyond(coco, root):
        for note in coco['annotations'][:10]:
            note['bbox'][2] += 100
    check_data(broken(beyond), ('train_dataloader',))


def test_order_swapped_in_the_validation_file_only(broken):
    cfg = broken(lambda coco, root: coco['categories'].reverse(), split='val')
    check_data(cfg, ('train_dataloader',))
    with pytest.raises(DataError, match=r'val_dataloader.dataset.metainfo.classes: .*numbers labels by the file'):
        check_data(cfg, ('train_dataloader', 'val_dataloader'))


def test_evaluation_needs_iscrowd(broken):
    cfg = broken(without('annotations', 'iscrowd', 2), split='val')
    with pytest.raises(DataError, match=r"val_dataloader.*2 of 9 annotations have no 'iscrowd'.*iscrowd=0"):
        check_data(cfg, ('val_dataloader',))


def test_a_teacher_alone_needs_no_objects(broken):
    cfg = broken(lambda coco, root: coco['annotations'].clear())
    cfg.model.ground_truth = False
    assert any('no object in it' in text for _, text in check_data(cfg, ('train_dataloader',)))


def test_too_few_images_for_a_batch(broken, monkeypatch):
    cfg = broken(single)
    check_data(cfg, ('train_dataloader',))  # the only batch is a small one
    cfg.train_dataloader.drop_last = True
    with pytest.raises(DataError, match=r'train_dataloader: 1 images are too few for one batch of 4 in each of 1'):
        check_data(cfg, ('train_dataloader',))
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=4, dataset=inner)
    check_data(cfg, ('train_dataloader',))
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(DataError, match='in each of 2 process'):
        check_data(cfg, ('train_dataloader',))
    cfg.train_dataloader.dataset = dict(inner, filter_cfg=dict(min_size=97))
    with pytest.raises(DataError, match=r'no image is left .*side below 97 pixels'):
        check_data(cfg, ('train_dataloader',))


def test_the_demo_sets_command_is_named_where_it_is_missing(sound, tmp_path):
    """One that there is in a wheel too, and that makes the folder which the config names."""
    cfg = copy.deepcopy(sound)
    set_data_root(cfg, str(tmp_path / 'a b' / 'digits'))
    with pytest.raises(DataError, match=r"Make it with: (kd-det data digits --out '.*/a b/digits/')$") as error:
        check_data(cfg, ('train_dataloader',))
    words = shlex.split(str(error.value).rsplit('kd-det ')[-1])
    assert parser().parse_args(words).out == cfg.data_root


def test_other_ranks_leave_it_to_the_first(broken, monkeypatch):
    cfg = broken(lambda coco, root: coco['images'].clear())
    monkeypatch.setenv('RANK', '1')
    assert check_data(cfg, ('train_dataloader',)) == []


@pytest.mark.parametrize('changes', [dict(), dict(filter_cfg=dict(filter_empty_gt=True, min_size=45)), dict(indices=5),
                                     dict(indices=[3, 1]), dict(test_mode=True),
                                     dict(metainfo=dict(classes=('square',)))])
def test_the_count_is_mmdetections(changes, tmp_path):
    """On every odd kind of object, image by image as MMDetection's own data set has them."""
    root = hard_images.make(tmp_path / 'hard')
    cfg = dict(hard_images.dataset_cfg(root), **changes)
    coco = json.loads((root / 'hard.json').read_text())
    coco['annotations'] += [dict(id=900 + i, image_id=0, category_id=1, iscrowd=0, **one) for i, one in enumerate((
        dict(bbox=[70, 1, 5, 5], area=25), dict(bbox=[1, 1, 0.5, 5], area=3), dict(bbox=[1, 1, 5, 5], area=0)))]
    coco['annotations'].append(dict(id=990, image_id=0, category_id=5, iscrowd=0, bbox=[1, 1, 5, 5], area=25))
    (root / 'hard.json').write_text(json.dumps(coco))
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg)
    classes = dataset.metainfo['classes']
    found = count_objects(coco, classes, cfg)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    objects = [[one for one in info['instances'] if not one['ignore_flag']] for info in infos]
    assert found.images == len(dataset) and found.empty == sum(not one for one in objects)
    expected = np.bincount([one['bbox_label'] for image in objects for one in image], minlength=len(classes))
    assert [found.trained[name] for name in classes] == expected.tolist()


def test_the_check_of_a_large_file_is_linear():
    """No pair of entries is compared: twice as many take no more than a few times as many look-ups."""
    images = [dict(id=i, file_name=f'{i}', width=9, height=9) for i in range(20000)]
    many = [dict(id=i, image_id=i % 20000, category_id=1, bbox=[0, 0, 5, 5], area=25, iscrowd=0) for i in range(60000)]
    coco = dict(images=images, annotations=many, categories=[dict(id=1, name='a')])
    assert check_annotations('k', coco, 'p', True) == []
    assert count_objects(coco, ('a',), {}).trained['a'] == 60000


def test_a_run_says_it_in_its_log_and_refuses_before_it_writes(broken, tmp_path):
    cfg = broken(lambda coco, root: coco['annotations'][0].update(iscrowd=1), log_level='INFO')
    cfg.work_dir = str(tmp_path / 'run')
    prepared_runner(copy.deepcopy(cfg))
    MMLogger._instance_dict.clear()
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'train_dataloader.dataset: 8 images, 1 of them without objects; 20 objects' in log
    assert 'val_dataloader.dataset: 4 images' in log
    config = tmp_path / 'on_the_copy.py'
    cfg.dump(config)
    cv2.imwrite(str(tmp_path / 'broken' / 'images' / 'train_2.png'), np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(DataError, match=r'train_2\.png is stated as 128x96 and decoded as 10x10'):
        run_tool('train', str(config), '--work-dir', str(tmp_path / 'other'))
    assert not (tmp_path / 'other').exists()
