# BCCD: the pair at half the teacher's resolution, the student's P2 taught by the teacher's P2 too.
_base_ = './faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120_distill-r18.py'
model = dict(rpn_distill=dict(finer_levels=True), hints=[dict(layer='neck', finer_levels=True)])
