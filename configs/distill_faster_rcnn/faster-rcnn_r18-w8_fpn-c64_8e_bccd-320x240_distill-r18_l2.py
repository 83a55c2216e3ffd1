# BCCD, column L2 of Chen et al. 2017, Table 4: the teacher's box as a second regression target, nothing else.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_distill-r18.py'
model = dict(
    rpn_distill=dict(cls=None, bbox=dict(type='BoxMimicryLoss', loss_weight=0.5)),
    rcnn_distill=dict(cls=None, bbox=dict(type='BoxMimicryLoss', loss_weight=0.5)),
    hints=[])
