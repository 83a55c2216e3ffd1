"""TwoViewDataset: two resolutions of one augmentation, aligned to the pixel."""
import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from kd_det.datasets import TwoViewDataset
from kd_det.errors import ConfigError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 48), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape', 'flip', 'scale_factor'))]


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def dataset(tmp_path):
    """Smooth images, of a size that halves to odd numbers, with one bright square."""
    images, notes = [], []
    for i, (height, width) in enumerate(((202, 270), (96, 128))):
        y, x = np.mgrid[:height, :width]
        image = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', height=height, width=width))
        notes.append(dict(id=i, image_id=i, category_id=1, bbox=[20, 20, 40, 40], area=1600, iscrowd=0))
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=images, annotations=notes,
                                                     categories=[dict(id=1, name='thing')])))
    return dict(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json', metainfo=dict(classes=('thing',)),
                data_prefix=dict(img=''), pipeline=PIPELINE)


def test_the_students_view_is_the_plain_data_sets(dataset):
    plain, paired = DATASETS.build(dict(dataset)), TwoViewDataset(dataset)
    flips = set()
    for seed in range(8):
        for index in range(2):
            torch.manual_seed(seed)
            np.random.seed(seed)
            one = plain[index]
            after = np.random.get_state()[1].copy(), np.random.get_state()[2]
            np.random.seed(seed)
            other = paired[index]
            assert torch.equal(one['inputs'], other['inputs'])
            assert torch.equal(*(s['data_samples'].gt_instances.bboxes.tensor for s in (one, other)))
            now = np.random.get_state()[1], np.random.get_state()[2]
            assert np.array_equal(after[0], now[0]) and after[1] == now[1]  # later draws are the plain ones too
            flips.add(bool(one['data_samples'].flip))
    assert flips == {True, False}


def test_the_teachers_view_is_the_same_augmentation_at_twice_the_resolution(dataset):
    paired = TwoViewDataset(dataset)
    for index in range(2):
        for seed in range(6):
            np.random.seed(seed)
            sample = paired[index]
            view, image = sample['data_samples'].teacher_view.float(), sample['inputs'].float()
            assert view.shape[1:] == tuple(2 * s for s in image.shape[1:])
            # on smooth images the mean over 2x2 pixels of the larger view is the smaller one, flipped or not
            small = torch.nn.functional.avg_pool2d(view[None], 2)[0]
            assert (small - image)[:, 1:-1, 1:-1].abs().max() <= 3
            mirrored = (small.flip(-1) - image)[:, 1:-1, 1:-1].abs().max()
            assert mirrored > 100  # the comparison can tell a flip


def test_the_teachers_view_has_detail_that_the_student_has_not(dataset, tmp_path):
    """A checkerboard of single pixels survives in the larger view only: it is not an enlarged small one."""
    board = (np.indices((96, 128)).sum(0) % 2 * 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / '1.png'), np.repeat(board[..., None], 3, 2))
    sample = TwoViewDataset(dataset)[1]
    assert sample['data_samples'].teacher_view.float().std() > 100 > sample['inputs'].float().std()


def test_random_resizes_are_followed(dataset):
    pipeline = [dict(type='RandomResize', scale=(64, 48), ratio_range=(0.5, 1.5), keep_ratio=True) if
                t['type'] == 'Resize' else t for t in PIPELINE]
    plain, paired = DATASETS.build({**dataset, 'pipeline': pipeline}), TwoViewDataset({**dataset, 'pipeline': pipeline})
    for seed in range(6):
        np.random.seed(seed)
        one = plain[0]
        np.random.seed(seed)
        other = paired[0]
        assert torch.equal(one['inputs'], other['inputs'])
        view = other['data_samples'].teacher_view
        assert view.shape[1:] == tuple(2 * s for s in one['inputs'].shape[1:])
        small = torch.nn.functional.avg_pool2d(view[None].float(), 2)[0]
        assert (small - one['inputs'].float())[:, 1:-1, 1:-1].abs().max() <= 4


def test_transforms_that_depend_on_the_size_are_refused(dataset):
    crop = [*PIPELINE[:2], dict(type='RandomCrop', crop_size=(32, 32)), PIPELINE[-1]]
    with pytest.raises(ConfigError, match=r'RandomCrop cannot be repeated'):
        TwoViewDataset({**dataset, 'pipeline': crop})
    with pytest.raises(ConfigError, match='scale_factor'):
        TwoViewDataset(dataset, scale_factor=1)


def test_each_image_is_read_and_decoded_once(dataset, monkeypatch):
    import mmcv
    from mmengine import fileio
    calls = []

    def count(module, name):
        original = getattr(module, name)

        def counted(*args, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)
        monkeypatch.setattr(module, name, counted)

    count(mmcv, 'imfrombytes')
    count(fileio, 'get')
    paired = TwoViewDataset(dataset)
    calls.clear()
    first = paired[0]
    assert sorted(calls) == ['get', 'imfrombytes']
    np.random.seed(0)
    again, np_state = paired[0], np.random.get_state()
    np.random.seed(0)
    assert torch.equal(again['data_samples'].teacher_view, paired[0]['data_samples'].teacher_view)
    assert np_state[2] == np.random.get_state()[2] and first['inputs'].dtype == torch.uint8


def test_a_refused_image_is_replaced_and_nothing_to_resize_is_refused(dataset):
    pipeline = [*PIPELINE[:3], dict(type='FilterAnnotations', min_gt_bbox_wh=(15, 15)), *PIPELINE[3:]]
    paired = TwoViewDataset({**dataset, 'pipeline': pipeline})
    shapes = set()
    for seed in range(6):  # the square has 10 pixels in the resized first image, 20 in the second
        np.random.seed(seed)
        sample = paired[0]
        shapes.add((sample['data_samples'].img_id, tuple(sample['data_samples'].teacher_view.shape)))
    assert shapes == {(1, (3, 96, 128))}
    with pytest.raises(ConfigError, match='nothing resizes the image'):
        TwoViewDataset({**dataset, 'pipeline': [*PIPELINE[:2], PIPELINE[-1]]})
