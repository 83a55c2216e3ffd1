# Faster R-CNN R50 taught by Cascade R-CNN R101: its one stage by the cascade's first, whose IoU threshold (0.5) is its own.
_base_ = '../faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='mmdet::cascade_rcnn/cascade-rcnn_r101_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/cascade_rcnn_r101_fpn_1x_coco/cascade_rcnn_r101_fpn_1x_coco_20200317-0b6a2fbf.pth'),
    rpn_distill=dict(),
    rcnn_distill=dict(stages='nearest'),
    hints=[dict(layer='neck')])
