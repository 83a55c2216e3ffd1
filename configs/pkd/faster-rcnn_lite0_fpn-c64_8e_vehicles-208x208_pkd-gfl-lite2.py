# Vehicles, 208x208: PKD on the neck, a Faster R-CNN under a GFL teacher; EfficientNet-Lite0 under Lite2, pre-trained.
_base_ = '../faster_rcnn/faster-rcnn_lite0_fpn-c64_8e_vehicles-208x208.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/gfl/gfl_lite2_fpn-c64_24e_vehicles-208x208.py',
                 checkpoint='work_dirs/gfl_lite2_fpn-c64_24e_vehicles-208x208/epoch_24.pth'),
    terms=[dict(type='Hint', layer='neck', adapter=None, loss=dict(type='PKDLoss', loss_weight=6.))])
