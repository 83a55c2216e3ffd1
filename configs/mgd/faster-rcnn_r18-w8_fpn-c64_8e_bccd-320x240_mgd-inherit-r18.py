# As faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_mgd-r18.py, beginning with the teacher's neck and heads where shapes agree.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_mgd-r18.py'
model = dict(teacher=dict(inherit=['neck', 'rpn_head', 'roi_head']))
