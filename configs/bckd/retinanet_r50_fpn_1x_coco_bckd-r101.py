# RetinaNet ResNet-50 under ResNet-101: BCKD.
_base_ = '../retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth'),
    terms=[dict(type='BCKD')])
