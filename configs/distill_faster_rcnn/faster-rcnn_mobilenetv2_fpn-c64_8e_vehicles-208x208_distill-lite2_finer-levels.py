# Vehicles: MobileNetV2 at half the teacher's resolution, the student's P2 taught by the teacher's P2 too.
_base_ = './faster-rcnn_mobilenetv2_fpn-c64_8e_vehicles-208x208_distill-lite2.py'
model = dict(rpn_distill=dict(finer_levels=True), hints=[dict(layer='neck', finer_levels=True)])
