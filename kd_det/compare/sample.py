"""A sample of an evaluation set: images with their ground truth, and what detectors find in them."""
import contextlib
import io
import os.path as osp
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.config import Config
from pycocotools.coco import COCO
from torch import nn

from ..errors import CompareError
from .images import open_test_set, prepared


@dataclass
class Photo:
    """An image file; sizes in pixels."""
    id: int
    path: str
    width: int
    height: int


@dataclass
class Sample:
    """Some images of an evaluation set.

    Attributes:
        photos: in the order of the set.
        truth: their ground truth, in COCO's form; a category's id is the detector's label.
        classes: names, by label.
        total: images in the whole set.
    """
    photos: list[Photo]
    truth: COCO
    classes: list[str]
    total: int

    def objects(self, photo: Photo) -> list[dict]:
        """The annotations of an image, crowds included."""
        return self.truth.imgToAnns[photo.id]


def sample_of(cfgs: Sequence[Config], number: int, named: Sequence[str] = ()) -> Sample | None:
    """Up to ``number`` images, evenly spaced over the first config's test set that is there.

    Args:
        cfgs: of the detectors.
        number: at least 1; all images where there are fewer.
        named: names of image files (without folders) to take instead.

    Returns:
        Sample | None: None where no config's data is there.

    Raises:
        CompareError: a named image that the set does not have.
    """
    dataset = open_test_set(cfgs)
    if dataset is None:
        return None
    if named:
        places = {osp.basename(dataset.get_data_info(i)['img_path']): i for i in range(len(dataset))}
        if missing := [name for name in named if osp.basename(name) not in places]:
            raise CompareError(f'the test set has no image {missing[0]!r}; it has {sorted(places)[:3]} and so on')
        picked = [places[osp.basename(name)] for name in named]
    else:
        picked = np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int).tolist()
    photos, annotations = [], []
    for i in picked:
        info = dataset.get_data_info(i)
        photos.append(Photo(len(photos), info['img_path'], int(info['width']), int(info['height'])))
        for instance in info['instances']:
            x1, y1, x2, y2 = instance['bbox']
            annotations.append(dict(id=len(annotations) + 1, image_id=photos[-1].id, category_id=instance['bbox_label'],
                                    bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1),
                                    iscrowd=int(instance.get('ignore_flag', 0))))
    classes = list(dataset.metainfo['classes'])
    return Sample(photos, truth_of(photos, annotations, classes), classes, len(dataset))


def truth_of(photos: Sequence[Photo], annotations: list[dict], classes: Sequence[str]) -> COCO:
    """COCO's own object of images and annotations."""
    truth = COCO()
    truth.dataset = dict(images=[dict(id=p.id, file_name=p.path, width=p.width, height=p.height) for p in photos],
                         annotations=annotations, categories=[dict(id=i, name=name) for i, name in enumerate(classes)])
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def check_classes(name: str, cfg: Config, classes: Sequence[str]) -> None:
    """Raises :class:`CompareError` where the detector ``name`` was made for other classes than ``classes``."""
    dataset = cfg.test_dataloader.dataset
    own = (dataset.get('metainfo') or {}).get('classes')
    if own is not None and list((own,) if isinstance(own, str) else own) != list(classes):
        raise CompareError(f'{name}: its config has the classes {list(own)}, the images have {list(classes)}; pictures '
                           'side by side need the same classes in the same order')


@torch.no_grad()
def detect(model: nn.Module, cfg: Config, photos: Sequence[Photo],
           progress: Callable[[int], None] = lambda done: None) -> list[dict]:
    """What a detector finds, prepared as its own test pipeline does.

    Args:
        model: in eval mode.
        cfg: its config.
        photos: images.
        progress: told how many are done.

    Returns:
        list[dict]: ``image_id``, ``category_id`` (the label), ``bbox`` (x, y, width, height in pixels of the file),
        ``score``; images in order, best score first.
    """
    found = []
    for done, photo in enumerate(photos, 1):
        instances = model.test_step(prepared(cfg, [photo.path], 1)[0])[0].pred_instances.cpu()
        boxes = getattr(instances.bboxes, 'tensor', instances.bboxes).double().tolist()
        rows = sorted(zip(instances.scores.double().tolist(), instances.labels.tolist(), boxes),
                      key=lambda row: -row[0])
        found += [dict(image_id=photo.id, category_id=int(label), bbox=[x1, y1, x2 - x1, y2 - y1], score=score)
                  for score, label, (x1, y1, x2, y2) in rows]
        progress(done)
    return found
