"""The small configs of every method on generated batches: the cases of ``same_steps.py`` and
``tests/test_first_steps.py``.

A case is a config file of ``configs/`` and changes to its model. It is loaded, built and stepped as a user's would be:
``load_config``, ``MODELS.build``, ``init_weights``, ``model.loss``; nothing of a detector's inside is touched, so that
the cases mean the same in every state of the project. Teachers and peers are made from seeded random weights.
"""
import os
import os.path as osp
import random
import sys
from collections.abc import Callable, Iterator

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

SIZE = (96, 128)  # height and width of the generated images, pixels
OBJECTS = ((3, 0), (4, 2), (1, 5), (0, 3), (6, 4))  # per image of a batch, step after step
NUM_CLASSES = 3
HERE = '{here}/'  # stands for the folder of the written files in a teacher's config

# -- plain detectors that configs/ has no small config of ----------------------------------------------------------
_DATA = ['../configs/_base_/datasets/bccd_160x120.py', '../configs/_base_/schedules/adamw_8e.py',
         '../configs/_base_/default_runtime.py']
_R18 = dict(depth=18, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
_FPN = dict(in_channels=[8, 16, 32, 64], out_channels=16)
_HEAD = dict(num_classes=NUM_CLASSES, in_channels=16, feat_channels=16, stacked_convs=2)
_TWO_STAGE = dict(
    backbone=_R18, neck=_FPN, rpn_head=dict(in_channels=16, feat_channels=16, anchor_generator=dict(scales=[4])),
    train_cfg=dict(rpn_proposal=dict(nms_pre=200, max_per_img=100)))
_STAGE = dict(type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=64, roi_feat_size=7, num_classes=NUM_CLASSES,
              reg_class_agnostic=True, loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
              loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0))
_STDS = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
PLAIN: dict[str, tuple[str | list[str], dict]] = {
    'cascade': (['mmdet::_base_/models/cascade-rcnn_r50_fpn.py', *_DATA], dict(_TWO_STAGE, roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=[dict(_STAGE, bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.] * 4, target_stds=stds))
                   for stds in _STDS]))),
    'mask': (['mmdet::_base_/models/mask-rcnn_r50_fpn.py', *_DATA], dict(_TWO_STAGE, roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=64, num_classes=NUM_CLASSES),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16, num_classes=NUM_CLASSES)))),
    'tood': ('mmdet::tood/tood_r50_fpn_1x_coco.py', dict(
        backbone=_R18, neck=_FPN, bbox_head=dict(_HEAD, norm_cfg=dict(type='GN', num_groups=4)))),
    'ddod': ('mmdet::ddod/ddod_r50_fpn_1x_coco.py', dict(
        backbone=_R18, neck=_FPN, bbox_head=dict(_HEAD, norm_cfg=dict(type='GN', num_groups=4)))),
    'yolox': ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', dict(
        data_preprocessor=dict(batch_augments=None), backbone=dict(widen_factor=0.125),
        neck=dict(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
        bbox_head=dict(num_classes=NUM_CLASSES, in_channels=32, feat_channels=32))),
}

# -- the cases: name -> (config below configs/ or a name in PLAIN, what is changed in its model) -----------------------
_STUDENT = 'faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240'
_COLUMN = f'distill_faster_rcnn/{_STUDENT}_distill-r18'
_SOFT = dict(min_iou=0.1)  # random teachers' boxes do not fit better
_PAA_TEACHER = dict(config='configs/paa/paa_r18-w16_fpn-c32_8e_bccd-320x240.py',
                    cfg_options={'model.bbox_head.type': 'BatchedPAAHead'})
_COLAD = 'colad/paa_r18-w16_fpn-c32_8e_bccd-320x240_colad-r18-w8.py'
_FRCNN = dict(type='FasterRCNNDistiller', rpn_distill=dict(), rcnn_distill=dict(), hints=[dict(layer='neck')])


def _lad(teacher: str, **options) -> dict:
    return dict(dict(type='LADDistiller', teacher=dict(config=teacher)), **options)


_RTMDET, _RTMDET_TEACHER = 'rtmdet/rtmdet_w0.125_8e_bccd-320x240.py', 'configs/rtmdet/rtmdet_w0.25_8e_bccd-320x240.py'
CASES: dict[str, tuple[str, dict]] = {
    'faster_rcnn/base': ('faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py', {}),
    **{f'faster_rcnn/{column}': (f'{_COLUMN}_{column}.py', {})
       for column in ('l2', 'l2b', 'cls', 'cls-w', 'hints', 'hints-a', 'l2b-cls-w')},
    'faster_rcnn/all': (f'{_COLUMN}.py', {}),
    'faster_rcnn/all-mu0.8-hint5': (f'{_COLUMN}.py', dict(
        rpn_distill=dict(hard_weight=0.8), rcnn_distill=dict(hard_weight=0.8),
        hints=[dict(layer='neck', loss=dict(type='HintLoss', loss_weight=5.0))])),
    'faster_rcnn/cross-resolution': (
        'distill_faster_rcnn/faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120_distill-r18.py', {}),
    'faster_rcnn/finer-levels': (
        'distill_faster_rcnn/faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120_distill-r18_finer-levels.py', {}),
    'faster_rcnn/cascade': ('cascade', dict(_FRCNN, teacher=dict(config=HERE + 'cascade.py'))),
    'faster_rcnn/mask': ('mask', dict(_FRCNN, teacher=dict(config=HERE + 'mask.py'))),
    **{f'faster_rcnn/{method}': (f'{method}/{_STUDENT}_{method}-r18.py', {})
       for method in ('pkd', 'cwd', 'fgd', 'mgd')},
    'faster_rcnn/cbd': (f'class_balanced/{_STUDENT}_cbd-r18.py', {}),
    **{f'faster_rcnn/{one}': (f'several_teachers/{_STUDENT}_{one}.py', {})
       for one in ('annealed', 'two-teachers', 'confident-teacher', 'junior')},
    'faster_rcnn/unlabelled': (f'unlabelled/{_STUDENT}-labels20_soft-r18.py', {}),
    'paa/base': ('paa/paa_r18-w8_fpn-c32_8e_bccd-320x240.py', {}),
    'paa/lad': ('lad/paa_r18-w8_fpn-c32_8e_bccd-320x240_lad-r18-w16.py', {}),
    'paa/lad-head': ('lad/paa_r18-w8_fpn-c32_8e_bccd-320x240_lad-r18-w16.py', dict(box_loss_average='head')),
    'paa/lad-batched': ('lad/paa_r18-w8_fpn-c32_8e_bccd-320x240_lad-r18-w16.py', dict(
        bbox_head=dict(type='BatchedPAAHead'))),
    'paa/solad': ('lad/paa_r18-w8_fpn-c32_8e_bccd-320x240_solad-r18.py', dict(teacher=_PAA_TEACHER, soft_label=_SOFT)),
    'paa/soft': ('soft_label/paa_r18-w8_fpn-c32_8e_bccd-320x240_soft-r18.py', dict(teacher=_PAA_TEACHER)),
    'paa/bckd': ('bckd/paa_r18-w8_fpn-c32_8e_bccd-320x240_bckd-r18.py', dict(teacher=_PAA_TEACHER)),
    'gfl/base': ('gfl/gfl_r18-w8_fpn-c64_8e_bccd-320x240.py', {}),
    'gfl/bckd': ('bckd/gfl_r18-w8_fpn-c64_8e_bccd-320x240_bckd-r18.py', {}),
    **{f'{kind}/{method}': (f'{method}/{kind}_r18-w8_fpn-c{width}_8e_bccd-320x240_{method}-r18.py', {})
       for kind, width, method in (('gfl', 64, 'crosskd'), ('paa', 32, 'crosskd'), ('retinanet', 64, 'crosskd'),
                                   ('gfl', 64, 'ld'), ('gfl', 64, 'pkd'), ('retinanet', 64, 'bckd'))},
    'gfl/cwd-cls': ('cwd/gfl_r18-w8_fpn-c64_8e_bccd-320x240_cwd-cls-r18.py', {}),
    'rtmdet/base': (_RTMDET, {}),
    'rtmdet/lad': ('lad/rtmdet_w0.125_8e_bccd-320x240_lad-w0.25.py', {}),
    'rtmdet/solad': ('lad/rtmdet_w0.125_8e_bccd-320x240_lad-w0.25.py', dict(soft_label=_SOFT)),
    'rtmdet/soft': (_RTMDET, _lad(_RTMDET_TEACHER, type='SoftLabelDistiller', soft_label=_SOFT)),
    'tood/lad': ('tood', _lad(HERE + 'tood.py')),
    'ddod/lad': ('ddod', _lad(HERE + 'ddod.py')),
    'yolox/lad': ('yolox', _lad(HERE + 'yolox.py')),
    'yolox/bckd': ('yolox', dict(type='Distiller', teacher=dict(config=HERE + 'yolox.py'), terms=[dict(type='BCKD')])),
    'colad/paa-std-mean': (_COLAD, {}),
    'colad/paa-std-mean-image': (_COLAD, dict(granularity='image')),
    'colad/paa-fisher': (f'{_COLAD[:-3]}-fisher.py', {}),
    'colad/paa-mean-cost': (_COLAD, dict(criterion=dict(type='MeanCostCriterion'))),
    'colad/paa-fixed-second': (_COLAD, dict(criterion=dict(type='FixedCriterion', network='second'))),
    'colad/paa-random': (_COLAD, dict(criterion=dict(type='RandomCriterion'))),
    'colad/rtmdet-std-mean': (_RTMDET, dict(
        type='CoLAD', peer=dict(config=_RTMDET_TEACHER, checkpoint=None), criterion=dict(type='StdMeanCriterion'))),
}
OWN_WEIGHTS = {'colad/paa-random'}  # here the peer begins with its own initialisation


def write_configs(checkout: str, folder: str) -> str:
    """Write every case as a config file over the checkout's ``configs/``; returns the folder of these files."""
    os.makedirs(here := osp.join(folder, 'cases'), exist_ok=True)
    if not osp.exists(link := osp.join(folder, 'configs')):
        os.symlink(osp.join(osp.abspath(checkout), 'configs'), link)
    files = {name: (base, {'model': model}) for name, (base, model) in PLAIN.items()}
    for name, (base, model) in CASES.items():
        files[_stem(name)] = f'./{base}.py' if base in PLAIN else f'../configs/{base}', {'model': model}
    for stem, (base, settings) in files.items():
        with open(osp.join(here, f'{stem}.py'), 'w', encoding='utf-8') as file:
            file.write(f'_base_ = {base!r}\n')
            file.writelines(f'{key} = {value!r}\n'.replace(HERE, here + '/') for key, value in settings.items())
    return here


def lacks(name: str, checkout: str) -> str | None:
    """What an earlier state of the project does not have yet of a case: its config file, or a type; None: nothing."""
    base, model = CASES[name]
    if base not in PLAIN and not osp.exists(osp.join(checkout, 'configs', base)):
        return f'configs/{base}'
    types = [model.get('type'), *(term['type'] for term in model.get('terms', []))]
    with DefaultScope.overwrite_default_scope('mmdet'):
        return next((kind for kind in types if kind is not None and MODELS.get(kind) is None), None)


def _stem(name: str) -> str:
    return name.replace('/', '_')


def load(name: str, here: str, checkpoints: str) -> Config:
    """The config of a case; its teacher's or peer's weights are made first if they are not in ``checkpoints`` yet."""
    try:
        from kd_det.config import load_config
    except ImportError:
        from kd_det.engine.config import load_config
    path = osp.join(here, f'{_stem(name)}.py')
    model, options = load_config(path).model, {}
    if 'teacher' in model:
        options = {'model.teacher.checkpoint': _weights(model.teacher, checkpoints, load_config),
                   'model.teacher.fuse_conv_bn': False, 'model.teacher.channels_last': False}
    elif 'peer' in model and name not in OWN_WEIGHTS:
        options = {'model.peer.checkpoint': _weights(model.peer, checkpoints, load_config)}
    for i, (source, network) in enumerate((model.get('sources') or {}).items()):
        if 'config' in network:  # an ensemble has none
            options.update({f'model.sources.{source}.checkpoint': _weights(network, checkpoints, load_config, 7 + i),
                            f'model.sources.{source}.fuse_conv_bn': False,
                            f'model.sources.{source}.channels_last': False})
    return load_config(path, options)


def _weights(network: dict, checkpoints: str, load_config: Callable, seed: int = 7) -> str:
    """A checkpoint of a teacher or peer: random weights, heads stirred, batch norms that have seen images."""
    stem = osp.splitext(osp.basename(network['config']))[0] + ('' if seed == 7 else f'_{seed}')
    path = osp.join(checkpoints, f'{stem}.pth')
    if not osp.exists(path):
        cfg = load_config(network['config'])
        cfg.merge_from_dict(network.get('cfg_options') or {})
        model = build(cfg, seed)
        with torch.no_grad():
            for step in range(3):
                model.extract_feat(model.data_preprocessor(batch(step + 100), True)['inputs'])
        torch.save(dict(meta=dict(), state_dict=model.state_dict()), path)
    return path


def build(cfg: Config, seed: int = 0) -> nn.Module:
    """The detector of a config in train mode, from seeded random states; its heads' weights are moved apart.

    Fresh heads give nearly equal scores everywhere; assignments would hang on the last bit.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    apart = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(model.state_dict().items()):
        if 'head' in name.split('.')[0] and name.endswith(('weight', 'bias')):
            tensor += 0.05 * torch.randn(tensor.shape, generator=apart)
            if 'rtm_reg' in name and name.endswith('bias'):
                tensor += 2  # boxes of the objects' size
    return model.train()


def batch(step: int, scale: int = 1, masks: bool = False) -> dict:
    """Two images with bright rectangles as a data loader delivers them; with ``scale`` the teacher's larger view too.
    """
    rng = np.random.default_rng(step)
    inputs, samples = [], []
    for index, count in enumerate(OBJECTS[step % len(OBJECTS)]):
        height, width = (scale * side for side in SIZE)
        view = rng.integers(0, 80, (3, height, width)).astype(np.uint8)
        corners = np.stack([rng.integers(0, side - 16, count) for side in SIZE[::-1]], -1)
        boxes = np.concatenate([corners, corners + rng.integers(12, 56, (count, 2))], -1).clip(0, SIZE[::-1] * 2)
        labels = rng.integers(0, NUM_CLASSES, count)
        bitmaps = np.zeros((count, *SIZE), dtype=np.uint8)
        for bitmap, (x1, y1, x2, y2), label in zip(bitmaps, boxes, labels):
            view[label, scale * y1:scale * y2, scale * x1:scale * x2] = 250
            bitmap[y1:y2, x1:x2] = 1
        small = view.reshape(3, SIZE[0], scale, SIZE[1], scale).mean((2, 4)).astype(np.uint8)
        sample = DetDataSample(metainfo=dict(img_id=index, img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=torch.from_numpy(boxes).float(), labels=torch.from_numpy(labels))
        if masks:
            sample.gt_instances.masks = BitmapMasks(bitmaps, *SIZE)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        if scale > 1:
            sample.teacher_view = torch.from_numpy(view)
        inputs.append(torch.from_numpy(small))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def steps_of(cfg: Config, model: nn.Module) -> Iterator[dict]:
    """Endless: the losses of one batch after another, as ``model.loss`` gives them."""
    scale = int((cfg.model.get('teacher') or {}).get('scale_factor', 1))
    masks = 'mask_head' in (cfg.model.get('roi_head') or {})
    hub, step = MessageHub.get_current_instance(), 0
    while True:
        hub.update_info('epoch', 0)
        hub.update_info('iter', step)
        data = model.data_preprocessor(batch(step, scale, masks), True)
        if cfg.model.get('unlabelled'):
            model.unlabelled.take(batch(step + 50, scale))
        yield model.loss(data['inputs'], data['data_samples'])
        step += 1


def values(losses: dict) -> dict[str, list[float]]:
    """Every logged value under its name, per level where there are levels."""
    return {name: [float(v) for v in (found if isinstance(found, (list, tuple)) else [found])]
            for name, found in losses.items()}


def record(name: str, here: str, checkpoints: str, steps: int) -> dict:
    """Train a case with AdamW, and write down what came of it.

    The optimizer treats each tensor by itself and nothing is clipped, so no figure depends on the order of parameters.

    Returns:
        dict: ``losses`` and ``gradients`` (norm by parameter), one dict a step; ``weights``, the final ``state_dict``;
        ``beside``, the parameters and batch norm statistics that train and are not in it (adapters, a peer).
    """
    cfg = load(name, here, checkpoints)
    model = build(cfg)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-4, foreach=False)
    found: dict = dict(losses=[], gradients=[])
    for losses, _ in zip(steps_of(cfg, model), range(steps)):
        optimizer.zero_grad()
        sum(sum(v) if isinstance(v, (list, tuple)) else v for k, v in losses.items() if 'loss' in k).backward()
        found['losses'].append(values(losses))
        found['gradients'].append({k: float(p.grad.double().norm()) for k, p in model.named_parameters()
                                   if p.grad is not None})
        optimizer.step()
    found['weights'] = {k: v.clone() for k, v in model.state_dict().items()}
    found['beside'] = {k: v for k, v in _tensors(model) if k not in found['weights']}
    return found


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((k, p.detach()) for k, p in model.named_parameters())
    yield from ((k, b) for k, b in model.named_buffers() if 'running_' in k)


def sources() -> set[str]:
    """The checkouts that the imported modules of ``kd_det`` are of; one, or something is mixed up."""
    folders = [osp.realpath(module.__file__) for name, module in sys.modules.items()
               if name.split('.')[0] == 'kd_det' and getattr(module, '__file__', None)]
    return {path[:path.rindex(f'{osp.sep}kd_det{osp.sep}')] for path in folders}
