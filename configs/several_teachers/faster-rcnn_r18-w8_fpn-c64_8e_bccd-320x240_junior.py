# BCCD: the same two teachers, asked only about RoIs that the student cannot decide (MulDE's junior).
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_two-teachers.py'
model = dict(rcnn_distill=dict(undecided=0.5))
