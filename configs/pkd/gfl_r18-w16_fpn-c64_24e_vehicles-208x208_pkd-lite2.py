# Vehicles, 208x208, GFL: PKD on the neck; ResNet-18 with 16 base channels, from scratch, under EfficientNet-Lite2.
_base_ = '../gfl/gfl_r18-w16_fpn-c64_24e_vehicles-208x208.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/gfl/gfl_lite2_fpn-c64_24e_vehicles-208x208.py',
                 checkpoint='work_dirs/gfl_lite2_fpn-c64_24e_vehicles-208x208/epoch_24.pth'),
    terms=[dict(type='Hint', layer='neck', adapter=None, loss=dict(type='PKDLoss'))])
