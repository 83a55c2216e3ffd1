# ResNet-18 taught by ResNet-101, every term of Chen et al. 2017.
_base_ = '../faster_rcnn/faster-rcnn_r18_fpn_1x_coco.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_1x_coco/faster_rcnn_r101_fpn_1x_coco_20200130-f513f705.pth'),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
