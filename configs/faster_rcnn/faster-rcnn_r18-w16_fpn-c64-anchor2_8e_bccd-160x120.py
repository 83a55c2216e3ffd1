# As faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120.py, with anchors half as large.
_base_ = './faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120.py'
# the smallest objects have 10 pixels at 160x120; anchors of 8 pixels there are the teacher's P3 anchors of 16, so that
# the objects which the student finds on P2 are those the teacher finds on a level with a partner
model = dict(rpn_head=dict(anchor_generator=dict(scales=[2])))
