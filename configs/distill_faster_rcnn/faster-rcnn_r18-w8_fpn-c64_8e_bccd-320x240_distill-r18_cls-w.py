# BCCD, column CLS-W of Chen et al. 2017, Table 4: soft targets with background weight 1.5, nothing else.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_distill-r18.py'
model = dict(rpn_distill=dict(bbox=None), rcnn_distill=dict(bbox=None), hints=[])
