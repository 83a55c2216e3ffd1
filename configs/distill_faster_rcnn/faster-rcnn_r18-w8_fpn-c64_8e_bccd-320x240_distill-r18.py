# BCCD: an eighth of the teacher's width at the same resolution, every term on.
_base_ = '../faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
