# Vehicles, both at 208x208: EfficientNet-Lite0 under Lite2, pre-trained, every term on.
_base_ = '../faster_rcnn/faster-rcnn_lite0_fpn-c64_8e_vehicles-208x208.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_lite2_fpn-c64_24e_vehicles-208x208.py',
                 checkpoint='work_dirs/faster-rcnn_lite2_fpn-c64_24e_vehicles-208x208/epoch_24.pth'),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
