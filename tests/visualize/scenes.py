"""A tiny distiller with its teacher, and an image of objects, as the pictures' code gets them."""
import copy

import cv2
from conftest import CLASSES, build, make_batch, save_checkpoint
from mmengine.config import Config, ConfigDict

from kd_det.compare.sample import Photo, Sample, truth_of
from kd_det.visualize.subjects import Taught

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 96), keep_ratio=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]


def taught(student, teacher, folder, kind='Distiller', **options) -> Taught:
    """A distiller of two detectors' configs, ready as after training."""
    path = save_checkpoint(build(copy.deepcopy(teacher), 7), folder / 'teacher.pth')
    model = ConfigDict(copy.deepcopy(student))
    model.update(student_type=model.type, type=kind, **options,
                 teacher=dict(config=copy.deepcopy(teacher), checkpoint=path))
    network = build(model, 1).eval()
    for source in network.sources.values():
        source.load()
    return Taught('distilled', Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=PIPELINE)),
                                           test_pipeline=PIPELINE, default_scope='mmdet')), network)


def photo(folder, seed=0, objects=3, size=(192, 256)) -> tuple[Sample, Photo]:
    """An image of twice the size that the detectors see, with its ground truth."""
    batch = make_batch(sizes=(size,), objects=(objects,), seed=seed)
    path = str(folder / 'photo.png')
    cv2.imwrite(path, batch['inputs'][0].permute(1, 2, 0).numpy())
    things = batch['data_samples'][0].gt_instances
    one = Photo(0, path, size[1], size[0])
    notes = [dict(id=i + 1, image_id=0, category_id=int(label), bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=0, area=1)
             for i, ((x1, y1, x2, y2), label) in enumerate(zip(things.bboxes.tolist(), things.labels.tolist()))]
    return Sample([one], truth_of([one], notes, CLASSES), list(CLASSES), 1), one
