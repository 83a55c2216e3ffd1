# PAA ResNet-50 under ResNet-101: BCKD, and the IoU branch at positives.
_base_ = '../paa/paa_r50_fpn_1x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::paa/paa_r101_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/paa/paa_r101_fpn_1x_coco/paa_r101_fpn_1x_coco_20200821-0a1825a4.pth'),
    terms=[dict(type='BCKD')])
