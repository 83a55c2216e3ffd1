# Vehicles: GFL, MobileNetV2, pre-trained, 64-channel FPN, 416x416.
_base_ = ['../_base_/models/gfl_r18_fpn-c64_scratch.py', '../_base_/datasets/vehicles_416x416.py',
          '../_base_/schedules/adamw-3e-4_8e.py', '../_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(mean='auto', std='auto'),
    backbone=dict(
        _delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6), norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True, init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/mobilenet_v2_imagenet.pth')),
    neck=dict(in_channels='auto'),
    bbox_head=dict(num_classes=5))
