# CrossKD, the published pair: RetinaNet R50 through the head of R101, 24 epochs.
_base_ = '../retinanet/retinanet_r50_fpn_2x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth'),
    terms=[dict(type='CrossHead')])
