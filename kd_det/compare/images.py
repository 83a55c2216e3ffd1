"""The images on which detectors are measured, prepared as each config's test pipeline does."""
import contextlib
import copy
import io
import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.config import Config

from ..errors import CompareError

_PHOTO = (640, 480)  # width, height where the pipeline names no size


def open_test_set(cfgs: Sequence[Config]) -> Any | None:
    """The test data set of the first config whose data is there; None if no config's is."""
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope
    for cfg in cfgs:
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        dataset_cfg = (cfg.get('test_dataloader') or {}).get('dataset')
        if dataset_cfg is None:
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
                dataset = DATASETS.build(copy.deepcopy(dataset_cfg))
        except FileNotFoundError:
            continue
        if len(dataset) and osp.isfile(dataset.get_data_info(0)['img_path']):
            return dataset
    return None


def test_images(cfgs: Sequence[Config], number: int) -> list[str] | None:
    """Paths of up to ``number`` images, evenly spaced over the first config's test set that exists.

    One set for all, so that every detector is measured on the same images. None if the data of no config is there.
    """
    dataset = open_test_set(cfgs)
    if dataset is None:
        return None
    picked = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)
    paths = [dataset.get_data_info(int(i))['img_path'] for i in picked]
    return paths if all(osp.isfile(path) for path in paths) else None


def prepared(cfg: Config, images: Sequence[str] | None, number: int) -> list[dict]:
    """Decode and resize images by the config's test pipeline, as a batch of one each.

    Args:
        cfg (Config): of the detector.
        images (Sequence[str] | None): paths; None makes ``number`` images of seeded uniform noise, of the size that the
            pipeline resizes to.
        number (int): how many images of noise.

    Returns:
        list[dict]: arguments of ``model.test_step``: ``inputs`` [(3, h, w) uint8] and ``data_samples``.

    Raises:
        CompareError: the config has no test pipeline.
    """
    from mmcv.transforms import Compose
    from mmdet.utils import get_test_pipeline_cfg
    from mmengine.registry import init_default_scope
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    if not cfg.get('test_dataloader'):
        raise CompareError('cannot measure: the config has no test_dataloader, so no test size')
    # annotations are no part of using a detector, and noise has none
    steps = [copy.deepcopy(step) for step in get_test_pipeline_cfg(cfg)
             if _name(step) not in ('LoadAnnotations', 'LoadPanopticAnnotations')]
    if images is not None:
        samples = [{'img_path': path, 'img_id': 0} for path in images]
    else:
        steps = [{'type': 'mmdet.LoadImageFromNDArray'} if _name(step) == 'LoadImageFromFile'
                 else step for step in steps]
        width, height = _test_size(steps)
        noise = np.random.RandomState(0)
        samples = [{'img': noise.randint(0, 256, (height, width, 3), dtype=np.uint8), 'img_id': 0}
                   for _ in range(number)]
    pipeline = Compose(steps)
    packed = [pipeline(sample) for sample in samples]
    return [{'inputs': [item['inputs']], 'data_samples': [item['data_samples']]} for item in packed]


def _name(step: dict) -> str:
    kind = step['type']
    return (kind if isinstance(kind, str) else kind.__name__).rsplit('.', 1)[-1]


def _test_size(steps: Sequence[dict]) -> tuple[int, int]:
    scales = [step['scale'] for step in steps if 'Resize' in _name(step) and step.get('scale')]
    if not scales:
        return _PHOTO
    scale = scales[0]
    return (int(scale), int(scale)) if isinstance(scale, (int, float)) else tuple(scale)
