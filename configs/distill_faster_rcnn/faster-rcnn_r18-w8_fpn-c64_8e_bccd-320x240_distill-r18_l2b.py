# BCCD, column L2-B of Chen et al. 2017, Table 4: the teacher as an upper bound of the regression loss, nothing else.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_distill-r18.py'
model = dict(rpn_distill=dict(cls=None), rcnn_distill=dict(cls=None), hints=[])
