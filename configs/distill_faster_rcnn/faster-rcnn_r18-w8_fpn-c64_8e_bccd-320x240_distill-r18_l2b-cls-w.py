# BCCD, column L2-B + CLS-W of Chen et al. 2017, Table 4: both distilled losses, no hints.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_distill-r18.py'
model = dict(hints=[])
