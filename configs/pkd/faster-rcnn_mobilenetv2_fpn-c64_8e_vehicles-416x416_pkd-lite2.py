# Vehicles: MobileNetV2, pre-trained: PKD on the neck, the published weight of a Faster R-CNN pair.
_base_ = '../faster_rcnn/faster-rcnn_mobilenetv2_fpn-c64_8e_vehicles-416x416.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_lite2_fpn-c64_24e_vehicles-416x416.py',
                 checkpoint='work_dirs/faster-rcnn_lite2_fpn-c64_24e_vehicles-416x416/epoch_24.pth'),
    terms=[dict(type='Hint', layer='neck', levels=[0, 1, 2, 3], adapter=None, loss=dict(type='PKDLoss', loss_weight=6.))])
