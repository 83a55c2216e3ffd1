# TOOD ResNet-50 under ResNet-101: BCKD.
_base_ = ['mmdet::tood/tood_r50_fpn_1x_coco.py', '../_base_/kd_det.py']
model = dict(
    type='Distiller', student_type='TOOD',
    teacher=dict(config='mmdet::tood/tood_r101_fpn_ms-2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/tood/tood_r101_fpn_mstrain_2x_coco/tood_r101_fpn_mstrain_2x_coco_20211210_144232-a18f53c8.pth'),
    terms=[dict(type='BCKD')])
