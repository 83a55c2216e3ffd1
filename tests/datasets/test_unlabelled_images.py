"""Images without annotations, and their batches without end."""
import json

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from kd_det.datasets import UnlabelledImages
from kd_det.datasets.stream import Stream
from kd_det.errors import ConfigError, DataError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]


def images(root, **changes):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return UnlabelledImages(**{**dict(data_root=str(root), data_prefix=dict(img='images'), pipeline=PIPELINE),
                                   **changes})


def test_a_folder_or_what_a_coco_file_lists_without_its_boxes(tiny_coco):
    assert len(images(tiny_coco)) == 12
    found = images(tiny_coco, ann_file='annotations/val.json')
    names = [found.get_data_info(i)['img_path'].rpartition('/')[2] for i in range(4)]
    assert names == [f'val_{i}.png' for i in range(4)]
    sample = found[0]
    assert sample['inputs'].shape == (3, 96, 128) and len(sample['data_samples'].gt_instances) == 0


def test_refusals_name_what_is_missing(tiny_coco, tmp_path):
    with pytest.raises(DataError, match=r"data_prefix\.img: the folder .*gone"):
        images(tiny_coco, data_prefix=dict(img='gone'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match=r'data_prefix\.img: no image'):
        images(tmp_path, data_prefix=dict(img='empty'))
    for content, words in ((dict(annotations=[]), 'no COCO file'), (dict(images=[]), 'lists no images'),
                           (dict(images=[dict(file_name='gone.png')]), "1 of 1 images .*'gone.png'")):
        (tmp_path / 'list.json').write_text(json.dumps(content))
        with pytest.raises(DataError, match=words):
            images(tiny_coco, ann_file=str(tmp_path / 'list.json'))


class Draws:
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return index, float(torch.rand(()))


def batches(begin, count, workers=0, dataset=None, sampler=DefaultSampler):
    dataset = Draws()
    loader = DataLoader(dataset, batch_size=2, sampler=sampler(dataset, shuffle=True, seed=3), collate_fn=list,
                        num_workers=workers)
    stream = iter(Stream('unlabelled_dataloader', loader, 7, begin))
    return [next(stream) for _ in range(count)]


def test_the_nth_batch_is_the_same_wherever_the_stream_begins():
    whole = batches(0, 10)
    assert len({value for batch in whole for _, value in batch}) == 3 * 5 + 2, 'a sample repeats itself'
    for begin in (1, 3, 5, 8):
        assert batches(begin, 10 - begin) == whole[begin:]
    assert batches(0, 10, workers=2) == whole
    orders = [[index for batch in whole[lap:lap + 3] for index, _ in batch] for lap in (0, 3, 6)]
    assert all(sorted(order) == list(range(5)) for order in orders) and orders[0] != orders[1]


def test_endless_samplers_are_refused():
    with pytest.raises(ConfigError, match=r'unlabelled_dataloader\.sampler: InfiniteSampler'):
        batches(0, 1, sampler=InfiniteSampler)
