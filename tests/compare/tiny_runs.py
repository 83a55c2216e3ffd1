"""Runs of a tiny detector as training leaves them, and the data they are evaluated on."""
import functools
import json

import cv2
import numpy as np
import torch
from conftest import CLASSES, build, faster_rcnn_cfg
from mmengine.config import Config

TIMESTAMP = '20260101_000000'


def dataset_cfg(root, ann_file):
    steps = [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': (64, 48)},
             {'type': 'LoadAnnotations', 'with_bbox': True},
             {'type': 'PackDetInputs', 'meta_keys': (
                 'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')}]
    return {'batch_size': 1, 'num_workers': 0, 'sampler': {'type': 'DefaultSampler',
                                                          'shuffle': False},
            'dataset': {'type': 'CocoDataset', 'data_root': root, 'ann_file': ann_file,
                        'data_prefix': {'img': ''}, 'metainfo': {'classes': CLASSES},
                        'test_mode': True, 'pipeline': steps}}


tiny_cfg = functools.cache(faster_rcnn_cfg)


def config(root, width=8, seed=0, **model):
    evaluator = {'type': 'CocoMetric', 'metric': 'bbox', 'classwise': True}
    return Config({
        'default_scope': 'mmdet', 'data_root': root,
        'model': {**tiny_cfg(width=width), **model},
        'val_dataloader': dataset_cfg(root, 'dev.json'),
        'val_evaluator': {**evaluator, 'ann_file': root + 'dev.json'}, 'val_cfg': {},
        'test_dataloader': dataset_cfg(root, 'eval.json'),
        'test_evaluator': {**evaluator, 'ann_file': root + 'eval.json'}, 'test_cfg': {},
        'randomness': {'seed': seed}})


def write_config(cfg, path):
    """What ``cfg.dump`` writes, without the seconds that it takes to make it pretty."""
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in cfg.to_dict().items()))


def write_run(work_dir, cfg, seed=0, ap=None, weights=None):
    """A work directory as training leaves it; without ``ap`` nothing was evaluated."""
    vis_data = work_dir / TIMESTAMP / 'vis_data'
    vis_data.mkdir(parents=True)
    cfg.randomness.seed = seed
    cfg.work_dir = str(work_dir)
    write_config(cfg, work_dir / 'tiny.py')
    write_config(cfg, vis_data / 'config.py')
    lines = [{'loss': 2., 'epoch': 1, 'iter': 2, 'step': 2},
             {'loss': 1., 'epoch': 2, 'iter': 4, 'step': 4}]
    if ap is not None:
        lines.append({'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': ap, 'coco/disc_precision': ap,
                      'coco/square_precision': ap, 'step': 2})
    (vis_data / f'{TIMESTAMP}.json').write_text(''.join(json.dumps(x) + '\n' for x in lines))
    torch.save({'state_dict': weights, 'meta': {'seed': seed, 'epoch': 2, 'iter': 4}},
               work_dir / 'epoch_2.pth')
    (work_dir / 'last_checkpoint').write_text('/moved/away/epoch_2.pth')
    return str(work_dir)


def make_place(folder):
    """Data in ``folder``, whose path with a slash is returned, and the weights of two detectors by width."""
    rng = np.random.default_rng(0)
    notes = []
    for i in range(4):
        cv2.imwrite(str(folder / f'{i}.png'), rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        notes.append({'id': i + 1, 'image_id': i, 'category_id': i % 2 + 1, 'iscrowd': 0,
                      'bbox': [5, 5, 20, 20], 'area': 400})
    coco = {'images': [{'id': i, 'file_name': f'{i}.png', 'width': 64, 'height': 48}
                       for i in range(4)],
            'categories': [{'id': 1, 'name': 'disc'}, {'id': 2, 'name': 'square'}]}
    for name in ('dev.json', 'eval.json'):
        (folder / name).write_text(json.dumps({**coco, 'annotations': notes}))
    weights = {width: build(tiny_cfg(width=width)).state_dict() for width in (8, 16)}
    return f'{folder}/', weights
