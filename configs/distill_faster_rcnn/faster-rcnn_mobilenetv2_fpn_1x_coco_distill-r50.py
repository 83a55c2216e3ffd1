# MobileNetV2 taught by ResNet-50, every term of Chen et al. 2017.
_base_ = '../faster_rcnn/faster-rcnn_mobilenetv2_fpn_1x_coco.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
