# BCCD, column CLS of Chen et al. 2017, Table 4: soft targets with equal weights, nothing else.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_distill-r18.py'
model = dict(
    rpn_distill=dict(cls=dict(type='SoftTargetLoss', background_weight=1.0), bbox=None),
    rcnn_distill=dict(cls=dict(type='SoftTargetLoss', background_weight=1.0), bbox=None),
    hints=[])
