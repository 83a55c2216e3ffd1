# As faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py, with anchors of the cells' own sizes: 24, 48 and 96 pixels.
_base_ = './faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py'
model = dict(rpn_head=dict(anchor_generator=dict(scales=[3])))
