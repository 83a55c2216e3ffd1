# BCCD: the same two teachers, weighted object by object by how sharply each decides.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_two-teachers.py'
model = dict(sources=dict(both=dict(confidence=0.1)))
