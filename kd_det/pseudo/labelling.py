"""Trained detectors on a folder of images: their boxes as a COCO annotation file."""
import json
import os
import os.path as osp
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

import cv2
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from pycocotools.coco import COCO
from torch import Tensor

from ..config import load_config
from ..datasets.image_folder import images_in
from ..errors import ConfigError, DataError
from ..files import write_whole
from ..plain import deployed_config
from ..weights import load_deployed
from .fusion import Detections, fuse
from .thresholds import ClassThreshold

EMPTY_IMAGES = 200  # so many images without a single box end a run: something is wrong, and it should not take a night


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
        dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
        if not dataset.get('pipeline'):
            raise ConfigError(f'--teacher {config}: it has no test_dataloader.dataset.pipeline')
        self.config, self.checkpoint = config, checkpoint
        with DefaultScope.overwrite_default_scope('mmdet'):
            self.model = MODELS.build(cfg.model)
            self.pipeline = Compose([step for step in dataset['pipeline'] if step['type'] != 'LoadAnnotations'])
        meta = load_deployed(self.model, checkpoint)
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
            data = self.pipeline(dict(img_path=path, img_id=image_id))
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


def detections_of(labeller: Labeller, truth: str, folder: str) -> tuple[list[Detections], list[tuple[Tensor, ...]]]:
    """Detections and objects of every image of a labelled COCO file, for :func:`kd_det.pseudo.thresholds.choose`.

    Raises:
        DataError: its classes are not the labeller's.
    """
    coco = COCO(truth)
    names = {category['id']: category['name'] for category in coco.dataset['categories']}
    missing = [name for name in labeller.classes if name not in names.values()]
    if missing:
        raise DataError(f'--val {truth}: it has no {missing}; its categories are {list(names.values())}')
    found, objects = [], []
    for image in coco.dataset['images']:
        found.append(labeller(osp.join(folder, image['file_name']), image['id']))
        notes = [note for note in coco.imgToAnns[image['id']] if names[note['category_id']] in labeller.classes]
        boxes = torch.tensor([note['bbox'] for note in notes], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        objects.append((boxes, torch.tensor([labeller.classes.index(names[note['category_id']]) for note in notes],
                                            dtype=torch.long),
                        torch.tensor([bool(note.get('iscrowd')) for note in notes], dtype=torch.bool)))
    return found, objects


def label_folder(labeller: Labeller, folder: str, out: str, thresholds: Sequence[ClassThreshold],
                 names: Sequence[str] | None = None, progress: Callable[[int, int, int], None] | None = None) -> dict:
    """Label every image and write ``out``, a COCO annotation file.

    Objects carry ``score``; boxes between the ignore threshold and the class's threshold are regions with
    ``iscrowd: 1``, which MMDetection hands to assigners as ignored. ``info`` holds teachers and thresholds. What is
    done is kept beside ``out`` (``.progress``) after each image, so that a run that was cut goes on where it stopped;
    it is removed at the end.

    Args:
        names: image files relative to ``folder``; None: all in it.
        progress: called with (images done, images, boxes so far).

    Returns:
        What was written.

    Raises:
        DataError: not one box in the first 200 images, or in all; progress of other settings.
    """
    names = images_in('--images', folder) if names is None else list(names)
    head = json.dumps(dict(teachers=[[t.config, t.checkpoint] for t in labeller.teachers], classes=labeller.classes,
                           thresholds=[asdict(row) for row in thresholds], images=names), sort_keys=True)
    done = _resumed(out + '.progress', head)
    boxes = sum(not box[5] for image in done.values() for box in image['boxes'])
    os.makedirs(osp.dirname(osp.abspath(out)), exist_ok=True)
    with open(out + '.progress', 'a', encoding='utf-8') as kept:
        if not done:
            kept.truncate(0)
            kept.write(head + '\n')
        for count, name in enumerate(names, 1):
            if name not in done:
                done[name] = _labelled(labeller, osp.join(folder, name), thresholds)
                kept.write(json.dumps(dict(done[name], file=name)) + '\n')
                kept.flush()
                boxes += sum(not box[5] for box in done[name]['boxes'])
            if progress is not None:
                progress(count, len(names), boxes)
            if not boxes and (count == EMPTY_IMAGES or count == len(names)):
                raise DataError(f'not one box above the thresholds in {count} images of {folder!r}: the teacher is not '
                                'trained on such images, or the thresholds '
                                f'{ {row.name: round(row.threshold, 3) for row in thresholds} } are too high')
    coco = _coco(labeller, names, done, thresholds)
    write_whole(out, json.dumps(coco))
    os.remove(out + '.progress')
    return coco


def _resumed(path: str, head: str) -> dict[str, dict]:
    """What an earlier run with the same settings did."""
    if not osp.isfile(path):
        return {}
    with open(path, encoding='utf-8') as file:
        lines = file.read().split('\n')
    if lines[0] and lines[0] != head:
        raise DataError(f'{path} is of a run with other teachers, thresholds or images; remove it, or give another '
                        '--out')
    done = {}
    for line in lines[1:-1]:  # the last one is empty, or was cut
        image = json.loads(line)
        done[image.pop('file')] = image
    if lines[-1]:  # cut in the middle: what was whole is written again
        write_whole(path, '\n'.join(lines[:-1]) + '\n')
    return done


def _labelled(labeller: Labeller, path: str, thresholds: Sequence[ClassThreshold]) -> dict:
    """Size and boxes [x1, y1, x2, y2, score, ignored, label] of one image."""
    image = cv2.imread(path)
    if image is None:
        raise DataError(f'{path} cannot be read as an image')
    height, width = image.shape[:2]
    rows = []
    for box, score, label in zip(*(part.tolist() for part in labeller(path))):
        limit = thresholds[label]
        x1, x2 = (min(max(v, 0.0), float(width)) for v in box[0::2])
        y1, y2 = (min(max(v, 0.0), float(height)) for v in box[1::2])
        if score >= limit.ignore and x2 > x1 and y2 > y1:
            rows.append([x1, y1, x2, y2, score, score < limit.threshold, label])
    return dict(width=width, height=height, boxes=rows)


def _coco(labeller: Labeller, names: Sequence[str], done: dict[str, dict],
          thresholds: Sequence[ClassThreshold]) -> dict:
    images, notes = [], []
    for number, name in enumerate(names, 1):
        images.append(dict(id=number, file_name=name, width=done[name]['width'], height=done[name]['height']))
        for x1, y1, x2, y2, score, ignored, label in done[name]['boxes']:
            notes.append(dict(id=len(notes) + 1, image_id=number, category_id=label + 1, iscrowd=int(ignored),
                              bbox=[round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                              area=round((x2 - x1) * (y2 - y1), 2), score=round(score, 5)))
    notes = [note for note in notes if note['bbox'][2] > 0 and note['bbox'][3] > 0]
    counts = Counter(note['category_id'] for note in notes if not note['iscrowd'])
    return dict(info=dict(description='pseudo labels', teachers=[dict(config=t.config, checkpoint=t.checkpoint,
                                                                      classes=t.classes) for t in labeller.teachers],
                          thresholds=[asdict(row) for row in thresholds],
                          boxes={name: counts[i] for i, name in enumerate(labeller.classes, 1)}),
                images=images, annotations=notes,
                categories=[dict(id=i, name=name) for i, name in enumerate(labeller.classes, 1)])
