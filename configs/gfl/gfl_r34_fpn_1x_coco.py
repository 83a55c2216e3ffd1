# GFL with ResNet-34.
_base_ = './gfl_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(depth=34, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet34')),
    neck=dict(in_channels=[64, 128, 256, 512]))
