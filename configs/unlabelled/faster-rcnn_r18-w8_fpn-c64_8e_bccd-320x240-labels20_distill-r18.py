# 20 % of BCCD's labels, distilled on these images alone: what the images without labels are measured against.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240-labels20.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/unlabelled/faster-rcnn_r18_fpn-c64_12e_bccd-320x240-labels20.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240-labels20/epoch_12.pth'),
    rpn_distill=dict(), rcnn_distill=dict(), hints=[dict(layer='neck')])
