"""Images that are not what their name says, and the sizes that pipelines decode."""
import io
import os
import re

import hard_images
import mmcv
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data.sampler import BatchSampler, SequentialSampler

from kd_det.datasets.image_files import decoded_size, image_damage
from kd_det.datasets.sample_seeds import seed_samples
from kd_det.errors import DataError


def noise(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize('content, words', [
    (b'', r'empty \(0 bytes\)'), (b'hello', 'no image that can be decoded'),
    (noise('jpeg')[:2000], 'cut off or is damaged'), (noise('png')[:5000], 'cut off or is damaged'),
    (noise('jpeg')[:100], 'cut off|no image'), (noise('jpeg'), None), (noise('png'), None), (noise('webp'), None),
    (noise('jpeg') + b'\0' * 300, None), (noise('bmp'), None)])
def test_damage_in_words(content, words, tmp_path):
    path = tmp_path / 'image'
    path.write_bytes(content)
    found = image_damage(str(path))
    assert found is None if words is None else re.search(words, found)


def test_a_missing_file_is_no_crash(tmp_path):
    assert 'cannot be read (No such file' in image_damage(str(tmp_path / 'none.jpg'))


@pytest.mark.parametrize('kind, name', [(kind, name) for name, (kind, _, _) in hard_images.IMAGES.items() if kind])
def test_sizes_are_those_that_the_pipeline_decodes(kind, name, tmp_path):
    path = tmp_path / name
    size = hard_images.save(path, kind)
    decoded = mmcv.imread(str(path), backend='cv2')
    assert decoded_size(str(path)) == size == decoded.shape[1::-1] and image_damage(str(path)) is None
    assert decoded.dtype == np.uint8 and decoded.shape[2] == 3
    if kind == 'turned':
        assert decoded_size(str(path), flag='color_ignore_orientation') == size[::-1]
        assert decoded_size(str(path), backend='pillow') == size


@pytest.mark.parametrize('kind, tolerance', [('16 bit', 0), ('transparent', 0), ('cmyk', 12), ('turned', 12)])
def test_every_kind_of_file_decodes_to_the_same_picture(kind, tolerance, tmp_path):
    path = tmp_path / ('image.jpg' if kind in ('cmyk', 'turned') else 'image.png')
    hard_images.save(path, kind)
    found = mmcv.imread(str(path)).astype(int)[4:44:8, 4:60:8]  # away from edges, where JPEG rings
    expected = hard_images.picture()[..., ::-1].astype(int)[4:44:8, 4:60:8]
    assert abs(found - expected).max() <= tolerance


def test_grey_and_16_bit_are_three_equal_channels_of_8_bits(tmp_path):
    found = []
    for kind in ('grey', 'grey, 16 bit'):
        hard_images.save(tmp_path / 'grey.png', kind)
        found.append(mmcv.imread(str(tmp_path / 'grey.png')))
    assert (found[0] == found[0][..., :1]).all() and abs(found[0].astype(int) - found[1]).max() <= 1


@pytest.mark.parametrize('workers', [0, 2])
def test_a_broken_image_is_named_by_the_loader(workers, tmp_path):
    root = hard_images.make(tmp_path / 'hard')
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(hard_images.dataset_cfg(root))
    os.truncate(root / 'images' / 'grey.png', 0)
    loader = DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 4, False), num_workers=workers,
                        collate_fn=list)
    seed_samples(loader, 0)
    with pytest.raises(DataError, match=r'image .*images/grey.png: it is empty \(0 bytes\); mend it'):
        list(loader)


def test_an_error_that_is_not_the_images_fault_stays_what_it_is(tmp_path):
    root = hard_images.make(tmp_path / 'hard')
    cfg = hard_images.dataset_cfg(root)
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg)

    def broken(results):
        raise ZeroDivisionError('of the pipeline')
    dataset.pipeline.transforms.append(broken)
    loader = DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 2, False), collate_fn=list)
    seed_samples(loader, 0)
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError, match='of the pipeline'):
        list(loader)
    assert torch.equal(state, torch.get_rng_state())
