# BCCD: the same two teachers, each counting for a class as much as its AP there says, on a part of train: not on the images
# that are reported on.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_two-teachers.py'
model = dict(sources=dict(both=dict(weights=dict(ap='annotations/dev.json'),
                                    members=dict(_delete_=True, a=dict(), b=dict()))))
