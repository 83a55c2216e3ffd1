# BCCD, column hints of Chen et al. 2017, Table 4: neck features compared as they are, nothing else.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_distill-r18.py'
model = dict(rpn_distill=None, rcnn_distill=None, hints=[dict(layer='neck', adapter=None)])
