"""Trained detectors as one that labels images."""
import contextlib
import io
import os.path as osp
from collections.abc import Callable, Sequence

import cv2
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from pycocotools.coco import COCO
from torch import Tensor

from ..config import load_config
from ..datasets.image_folder import listed_images
from ..errors import ConfigError, DataError
from ..plain import deployed_config
from ..sources.whole_images import whole_pipeline
from ..weights import digest, load_deployed
from .fusion import Detections, fuse


class Teacher:
    """One detector for inference, with the pipeline of its own config.

    Args:
        config (str): its config file.
        checkpoint (str): its weights; class names are read from it, or else from the config's data set.
        device (str): where it runs.

    Raises:
        ConfigError: no test pipeline, no class names.
        CheckpointMismatch: the checkpoint does not fit.
    """

    def __init__(self, config: str, checkpoint: str, device: str = 'cpu') -> None:
        cfg = deployed_config(load_config(config))
        steps = whole_pipeline(cfg, f'--teacher {config}')
        dataset = cfg.test_dataloader.dataset
        self.config, self.checkpoint = config, checkpoint
        with DefaultScope.overwrite_default_scope('mmdet'):
            self.model = MODELS.build(cfg.model)
            self.pipeline = Compose(steps)
        meta = load_deployed(self.model, checkpoint)
        self.digest = digest(self.model.state_dict())  # a checkpoint may be trained anew under its old name
        self.model.to(device).eval()
        names = (meta.get('dataset_meta') or {}).get('classes') or (dataset.get('metainfo') or {}).get('classes')
        if not names:
            raise ConfigError(f'--teacher {config} {checkpoint}: neither names its classes (dataset_meta, '
                              'test_dataloader.dataset.metainfo.classes)')
        self.classes = tuple(names)

    @torch.no_grad()
    def __call__(self, path: str, image_id: int) -> Detections:
        """Detections of one image, in its own pixels."""
        with DefaultScope.overwrite_default_scope('mmdet'):
            try:
                data = self.pipeline(dict(img_path=path, img_id=image_id))
            # transforms stumble over the None that OpenCV gives for what it cannot read
            except (OSError, AssertionError, AttributeError, TypeError, cv2.error) as error:
                raise DataError(f'{path} cannot be read as an image ({error})') from error
        found = self.model.test_step(pseudo_collate([data]))[0].pred_instances.cpu()
        return found.bboxes.float(), found.scores.float(), found.labels


class Labeller:
    """Several teachers, fused, with labels in one list of classes.

    Args:
        teachers: of which each may know a part of the classes.
        classes: the names that the annotation file will have, in order.
        weights: of the teachers; None: 1.
        iou: of the fusion.

    Raises:
        DataError: a class of a teacher that is not in ``classes``, or one of these that no teacher knows.
    """

    def __init__(self, teachers: Sequence[Teacher], classes: Sequence[str], weights: Sequence[float] | None = None,
                 iou: float = 0.55) -> None:
        for teacher in teachers:
            strange = [name for name in teacher.classes if name not in classes]
            if strange:
                raise DataError(f'teacher {teacher.checkpoint} knows {list(teacher.classes)}, of which {strange} are '
                                f'not among the classes {list(classes)}; names must agree')
        unknown = [name for name in classes if not any(name in teacher.classes for teacher in teachers)]
        if unknown:
            raise DataError(f'no teacher knows the classes {unknown}; their objects would be taken for background')
        self.teachers, self.classes, self.weights, self.iou = teachers, tuple(classes), weights, iou
        self.knows = [[self.classes.index(name) for name in teacher.classes] for teacher in teachers]

    def __call__(self, path: str, image_id: int = 0) -> Detections:
        found = []
        for teacher, labels in zip(self.teachers, self.knows):
            boxes, scores, own = teacher(path, image_id)
            found.append((boxes, scores, torch.tensor(labels, dtype=torch.long)[own]))
        return found[0] if len(found) == 1 else fuse(found, self.weights, self.iou, self.knows)


def detections_of(labeller: Labeller, truth: str, folder: str, progress: Callable[[int, int], None] | None = None
                  ) -> tuple[list[Detections], list[tuple[Tensor, ...]]]:
    """Detections and objects of every image of a labelled COCO file, for :func:`kd_det.pseudo.thresholds.choose`.

    Args:
        progress: called with (images done, images).

    Raises:
        DataError: its classes are not the labeller's, images are missing or unreadable.
    """
    names = listed_images('--val', truth, '--val-images', folder)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
        coco = COCO(truth)
    categories = {category['id']: category['name'] for category in coco.dataset.get('categories', [])}
    missing = [name for name in labeller.classes if name not in categories.values()]
    if missing:
        raise DataError(f'--val {truth}: it has no {missing}; its categories are {list(categories.values())}')
    found, objects = [], []
    for count, (image, name) in enumerate(zip(coco.dataset['images'], names), 1):
        found.append(labeller(osp.join(folder, name), image['id']))
        notes = [note for note in coco.imgToAnns[image['id']] if categories[note['category_id']] in labeller.classes]
        boxes = torch.tensor([note['bbox'] for note in notes], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [labeller.classes.index(categories[note['category_id']]) for note in notes]
        crowds = [bool(note.get('iscrowd')) for note in notes]
        objects.append((boxes, torch.tensor(labels, dtype=torch.long), torch.tensor(crowds, dtype=torch.bool)))
        if progress is not None:
            progress(count, len(names))
    return found, objects
