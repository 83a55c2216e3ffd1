"""Tiny single-stage detectors, one of each head, from MMDetection's own settings."""
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config

SOURCES = dict(
    paa='paa/paa_r50_fpn_1x_coco.py', rtmdet='rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    tood='tood/tood_r50_fpn_1x_coco.py', yolox='yolox/yolox_tiny_8xb8-300e_coco.py',
    ddod='ddod/ddod_r50_fpn_1x_coco.py', atss='atss/atss_r50_fpn_1x_coco.py',
    gfl='gfl/gfl_r50_fpn_1x_coco.py', retinanet='retinanet/retinanet_r50_fpn_1x_coco.py',
    fcos='fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', yolof='yolof/yolof_r50-c5_8xb8-1x_coco.py',
    vfnet='vfnet/vfnet_r50_fpn_1x_coco.py', fsaf='fsaf/fsaf_r50_fpn_1x_coco.py')
_CACHE: dict[str, ConfigDict] = {}


def dense_cfg(kind: str, width: int = 8, channels: int = 16, num_classes: int = 2, **head) -> ConfigDict:
    """A detector that takes milliseconds a step: ResNet-18 and FPN of the given widths, two classes."""
    if kind not in _CACHE:
        _CACHE[kind] = ConfigDict(get_config(f'mmdet::{SOURCES[kind]}').model.to_dict())
    source = ConfigDict(_CACHE[kind].to_dict())
    levels = len(source.bbox_head.get('anchor_generator', {}).get('strides', ())) or 5
    if kind in ('rtmdet', 'yolox'):
        levels = 3
    widths = [width * 2**i for i in range(4)]
    bbox_head = source.bbox_head
    bbox_head.update(num_classes=num_classes, in_channels=channels, feat_channels=channels, stacked_convs=1)
    if kind == 'rtmdet':
        bbox_head.norm_cfg = dict(type='BN')
    elif kind == 'yolof':
        bbox_head.update(in_channels=channels, num_cls_convs=1, num_reg_convs=1)
        bbox_head.pop('feat_channels'), bbox_head.pop('stacked_convs')
    elif kind != 'yolox':
        bbox_head.norm_cfg = dict(type='GN', num_groups=4, requires_grad=True)
    if kind == 'tood':
        bbox_head.stacked_convs = 2
    bbox_head.update(head)
    neck = dict(type='FPN', in_channels=widths[1:], out_channels=channels, num_outs=levels,
                add_extra_convs='on_output' if levels > 3 else False)
    if kind == 'yolof':
        neck = dict(type='FPN', in_channels=widths[3:], out_channels=channels, num_outs=1)
    return ConfigDict(
        type='SingleStageDetector',
        data_preprocessor=dict(type='DetDataPreprocessor', mean=[100.] * 3, std=[50.] * 3, pad_size_divisor=32),
        backbone=dict(type='ResNet', depth=18, base_channels=width, num_stages=4,
                      out_indices=(3,) if kind == 'yolof' else (1, 2, 3),
                      norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, init_cfg=None),
        neck=neck, bbox_head=bbox_head, train_cfg=source.get('train_cfg'), test_cfg=source.get('test_cfg'))


def stirred(model):
    """Fresh heads all predict the same; these do not, and their boxes are of the objects' size."""
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for layer in getattr(model.bbox_head, 'rtm_reg', ()):
            layer.bias += 2
        if type(model.bbox_head).__name__ == 'FCOSHead':
            model.bbox_head.conv_reg.bias += 2.5
    return model
