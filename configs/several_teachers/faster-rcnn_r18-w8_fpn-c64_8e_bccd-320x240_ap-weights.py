# BCCD: the same two teachers, each counting for a class as much as its AP there on the evaluation set says. These images must
# not be the ones that are reported on: here AP is measured on dev.json, a part of train.json.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_two-teachers.py'
model = dict(sources=dict(both=dict(weights='ap', members=dict(_delete_=True, a=dict(), b=dict()))))
