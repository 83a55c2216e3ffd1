# Vehicles: MobileNetV2, pre-trained, the teacher's resolution, every term on.
_base_ = '../faster_rcnn/faster-rcnn_mobilenetv2_fpn-c64_8e_vehicles-416x416.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_lite2_fpn-c64_24e_vehicles-416x416.py',
                 checkpoint='work_dirs/faster-rcnn_lite2_fpn-c64_24e_vehicles-416x416/epoch_24.pth'),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
