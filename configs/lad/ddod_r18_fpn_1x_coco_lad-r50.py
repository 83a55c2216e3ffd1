# DDOD ResNet-18 under ResNet-50's label assignment.
_base_ = ['mmdet::ddod/ddod_r50_fpn_1x_coco.py', '../_base_/kd_det.py']
model = dict(
    type='LADDistiller',
    backbone=dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]),
    teacher=dict(config='mmdet::ddod/ddod_r50_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/ddod/ddod_r50_fpn_1x_coco/ddod_r50_fpn_1x_coco_20220523_223737-29b2fc67.pth'))
