# COCO: ResNet-50 taught by ResNet-101 and ResNeXt-101, in both stages.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
model = dict(
    type='FasterRCNNDistiller',
    student_type='FasterRCNN',
    sources=dict(
        a=dict(config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
               checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth'),
        b=dict(config='mmdet::faster_rcnn/faster-rcnn_x101-32x4d_fpn_2x_coco.py',
               checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_x101_32x4d_fpn_2x_coco/faster_rcnn_x101_32x4d_fpn_2x_coco_bbox_mAP-0.412_20200506_041400-64a12c0b.pth')),
    rpn_distill=dict(source=['a', 'b']),
    rcnn_distill=dict(source=['a', 'b']))
