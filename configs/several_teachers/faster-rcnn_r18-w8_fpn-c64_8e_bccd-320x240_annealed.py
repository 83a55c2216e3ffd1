# BCCD: one teacher, and its word gives way to the ground truth over training (BAM's teacher annealing).
_base_ = '../faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    rpn_distill=dict(hard_weight='anneal'),
    rcnn_distill=dict(hard_weight='anneal'))
