# MGD on the neck, with the constants published for a RetinaNet's kind.
_base_ = '../retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_1x_coco/retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth'),
    terms=[dict(type='Hint', layer='neck', adapter=None, loss=dict(type='MGDLoss'))])
