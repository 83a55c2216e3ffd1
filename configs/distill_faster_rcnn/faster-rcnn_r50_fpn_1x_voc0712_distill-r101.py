# ResNet-50 taught by ResNet-101 on VOC, every term of Chen et al. 2017. Train the teacher first.
_base_ = '../faster_rcnn/faster-rcnn_r50_fpn_1x_voc0712.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r101_fpn_1x_voc0712.py',
                 checkpoint='work_dirs/faster-rcnn_r101_fpn_1x_voc0712/epoch_4.pth'),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
