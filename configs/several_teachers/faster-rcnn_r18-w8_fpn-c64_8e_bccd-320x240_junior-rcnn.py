# BCCD: the junior's choice without the RPN's term, so that images of which every RoI is decided do not run.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_junior.py'
model = dict(rpn_distill=None)
