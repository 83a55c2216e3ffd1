# ATSS ResNet-50 under ResNet-101: BCKD, and the centerness at positives.
_base_ = '../atss/atss_r50_fpn_1x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::atss/atss_r101_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/atss/atss_r101_fpn_1x_coco/atss_r101_fpn_1x_20200825-dfcadd6f.pth'),
    terms=[dict(type='BCKD')])
