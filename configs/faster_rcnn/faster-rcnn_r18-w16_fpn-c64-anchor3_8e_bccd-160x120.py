# As faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120.py, with anchors of the cells' own sizes: 12, 24 and 48 pixels.
_base_ = './faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120.py'
model = dict(rpn_head=dict(anchor_generator=dict(scales=[3])))
