# COCO: ResNet-50 under ResNet-101, whose word gives way to the ground truth over training (BAM's teacher annealing).
_base_ = '../faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth'),
    rpn_distill=dict(hard_weight='anneal'),
    rcnn_distill=dict(hard_weight='anneal'))
