"""Tiny detectors of every kind that a hint can reach, from MMDetection's own settings."""
from collections.abc import Callable

import numpy as np
from conftest import faster_rcnn_cfg, make_batch, mmdet_model
from dense_detectors import dense_cfg
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict

RESNET = dict(type='ResNet', depth=18, num_stages=4, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False,
              init_cfg=None)
PREPROCESSOR = dict(type='DetDataPreprocessor', mean=[100.] * 3, std=[50.] * 3, pad_size_divisor=32)


def _resnet(width: int, out_indices: tuple = (1, 2, 3)) -> dict:
    return dict(RESNET, base_channels=width, out_indices=out_indices)


def _widths(width: int) -> list[int]:
    return [width * 2**i for i in range(4)]


def mask_rcnn(width: int) -> ConfigDict:
    cfg, plain = mmdet_model('_base_/models/mask-rcnn_r50_fpn.py'), faster_rcnn_cfg(width=width)
    cfg.data_preprocessor = dict(plain.data_preprocessor, pad_mask=True)
    for part in ('backbone', 'neck', 'rpn_head'):
        cfg[part] = plain[part]
    cfg.roi_head.update(bbox_roi_extractor=plain.roi_head.bbox_roi_extractor, bbox_head=plain.roi_head.bbox_head)
    cfg.roi_head.mask_roi_extractor.out_channels = 16
    cfg.roi_head.mask_head.update(in_channels=16, conv_out_channels=8, num_classes=2, num_convs=1)
    cfg.train_cfg.rpn_proposal, cfg.test_cfg.rpn = plain.train_cfg.rpn_proposal, plain.test_cfg.rpn
    return cfg


def cascade_rcnn(width: int) -> ConfigDict:
    cfg, plain = mmdet_model('_base_/models/cascade-rcnn_r50_fpn.py'), faster_rcnn_cfg(width=width)
    for part in ('backbone', 'neck', 'rpn_head', 'data_preprocessor'):
        cfg[part] = plain[part]
    cfg.roi_head.bbox_roi_extractor.out_channels = 16
    for head in cfg.roi_head.bbox_head:
        head.update(in_channels=16, fc_out_channels=32, num_classes=2)
    cfg.train_cfg.rpn_proposal, cfg.test_cfg.rpn = plain.train_cfg.rpn_proposal, plain.test_cfg.rpn
    return cfg


def sparse_rcnn(width: int) -> ConfigDict:
    cfg = mmdet_model('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py')
    cfg.update(backbone=_resnet(width, (0, 1, 2, 3)), data_preprocessor=dict(PREPROCESSOR))
    cfg.neck.update(in_channels=_widths(width), out_channels=16)
    cfg.rpn_head.update(num_proposals=8, proposal_feature_channel=16)
    cfg.roi_head.update(num_stages=2, proposal_feature_channel=16, stage_loss_weights=[1, 1],
                        bbox_head=cfg.roi_head.bbox_head[:2])
    cfg.roi_head.bbox_roi_extractor.out_channels = 16
    for head in cfg.roi_head.bbox_head:
        head.update(num_classes=2, in_channels=16, feedforward_channels=16, num_heads=2)
        head.dynamic_conv_cfg.update(in_channels=16, feat_channels=4, out_channels=16)
    cfg.train_cfg.rcnn = cfg.train_cfg.rcnn[:2]
    cfg.test_cfg.rcnn.max_per_img = 8
    return cfg


def ssd(width: int) -> ConfigDict:
    cfg = mmdet_model('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py')
    cfg.data_preprocessor.pad_size_divisor = 32
    cfg.backbone.update(widen_factor=0.25 if width == 8 else 0.5, norm_cfg=dict(type='BN'), init_cfg=None)
    channels = (24, 1280) if width == 8 else (48, 1280)
    cfg.neck.update(in_channels=channels, out_channels=(*channels, 32, 16, 16, 8), norm_cfg=dict(type='BN'),
                    init_cfg=None)
    cfg.bbox_head.update(in_channels=(*channels, 32, 16, 16, 8), num_classes=2, norm_cfg=dict(type='BN'))
    return cfg


def centernet(width: int) -> ConfigDict:
    cfg = mmdet_model('centernet/centernet_r18_8xb16-crop512-140e_coco.py')
    cfg.update(backbone=_resnet(width, (0, 1, 2, 3)), data_preprocessor=dict(PREPROCESSOR))
    cfg.neck.update(in_channels=8 * width, num_deconv_filters=(32, 16, 8))
    cfg.bbox_head.update(num_classes=2, in_channels=8, feat_channels=8)
    return cfg


def _attention(layer: dict, width: int = 16) -> None:
    for key in ('self_attn_cfg', 'cross_attn_cfg'):
        if key in layer:
            layer[key].update(embed_dims=width)
            if 'num_heads' in layer[key]:
                layer[key].update(num_heads=2)
    layer.ffn_cfg.update(embed_dims=width, feedforward_channels=16)


def detr(width: int) -> ConfigDict:
    cfg = mmdet_model('detr/detr_r50_8xb2-150e_coco.py')
    cfg.update(backbone=_resnet(width, (3,)), num_queries=8, data_preprocessor=dict(PREPROCESSOR))
    cfg.neck.update(in_channels=[8 * width], out_channels=16)
    for part in (cfg.encoder, cfg.decoder):
        part.num_layers = 2
        _attention(part.layer_cfg)
    cfg.positional_encoding.num_feats = 8
    cfg.bbox_head.update(num_classes=2, embed_dims=16)
    cfg.test_cfg.max_per_img = 8
    return cfg


def _deformable(cfg: ConfigDict, width: int, dims: int = 16) -> ConfigDict:
    cfg.update(backbone=_resnet(width), num_queries=8, data_preprocessor=dict(PREPROCESSOR))
    cfg.neck.update(in_channels=_widths(width)[1:], out_channels=dims, norm_cfg=dict(type='GN', num_groups=4))
    for part in (cfg.encoder, cfg.decoder):
        part.num_layers = 2
        _attention(part.layer_cfg, dims)
    cfg.positional_encoding.num_feats = dims // 2
    cfg.bbox_head.update(num_classes=2, embed_dims=dims)
    cfg.test_cfg.max_per_img = 8
    return cfg


def deformable_detr(width: int) -> ConfigDict:
    cfg = mmdet_model('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py')
    return _deformable(cfg, width)


def dino(width: int) -> ConfigDict:
    # MMDetection's decoder encodes reference points in 2 x 256 numbers, whatever the width
    cfg = _deformable(mmdet_model('dino/dino-4scale_r50_8xb2-12e_coco.py'), width, 256)
    cfg.dn_cfg.group_cfg.num_dn_queries = 4
    return cfg


def dense(kind: str, own: str) -> Callable[[int], ConfigDict]:
    def make(width: int) -> ConfigDict:
        cfg = dense_cfg(kind, width=width)
        cfg.type = own
        return cfg
    return make


def two_stage(width: int) -> ConfigDict:
    return faster_rcnn_cfg(width=width)


DETECTORS: dict[str, Callable[[int], ConfigDict]] = dict(
    faster_rcnn=two_stage, mask_rcnn=mask_rcnn, cascade_rcnn=cascade_rcnn, sparse_rcnn=sparse_rcnn,
    retinanet=dense('retinanet', 'RetinaNet'), fcos=dense('fcos', 'FCOS'), atss=dense('atss', 'ATSS'),
    gfl=dense('gfl', 'GFL'), yolox=dense('yolox', 'YOLOX'), rtmdet=dense('rtmdet', 'RTMDet'), ssd=ssd,
    centernet=centernet, detr=detr, deformable_detr=deformable_detr, dino=dino)
"""Name -> a function from the backbone's base channels (8: student, 16: teacher) to a detector's config."""


def batch_of(seed=0, name='') -> dict:
    """Two images as a detector of :data:`DETECTORS` wants them, one without objects."""
    batch = make_batch(sizes=((128, 128),) * 2, objects=(3, 0), seed=seed)
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(batch_input_shape=(128, 128), pad_shape=(128, 128),
                                 border=np.array([0, 128, 0, 128], dtype=np.float32)))
        if name != 'mask_rcnn':
            continue
        boxes = sample.gt_instances.bboxes.int().tolist()
        masks = np.zeros((len(boxes), 128, 128), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes):
            mask[y1:y2, x1:x2] = 1
        sample.gt_instances.masks = BitmapMasks(masks, 128, 128)
    return batch
