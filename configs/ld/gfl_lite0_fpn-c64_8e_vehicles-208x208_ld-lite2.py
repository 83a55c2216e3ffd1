# Vehicles, 208x208, GFL: LD; EfficientNet-Lite0, pre-trained, under EfficientNet-Lite2.
_base_ = '../gfl/gfl_lite0_fpn-c64_8e_vehicles-208x208.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/gfl/gfl_lite2_fpn-c64_24e_vehicles-208x208.py',
                 checkpoint='work_dirs/gfl_lite2_fpn-c64_24e_vehicles-208x208/epoch_24.pth'),
    terms=[dict(type='LD')])
