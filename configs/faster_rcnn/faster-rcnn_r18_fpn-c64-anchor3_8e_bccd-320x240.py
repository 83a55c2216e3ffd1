# As faster-rcnn_r18_fpn-c64_8e_bccd-320x240.py, with anchors of the cells' own sizes.
_base_ = './faster-rcnn_r18_fpn-c64_8e_bccd-320x240.py'
# the median platelet, red and white cell of fit.json have 20, 52 and 96 pixels; anchors of 24, 48 and 96 fit them, and
# find them on P3 to P5, levels that have a partner in a student of half the resolution
model = dict(rpn_head=dict(anchor_generator=dict(scales=[3])))
