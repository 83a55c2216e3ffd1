# Vehicles: CrossKD, GFL with EfficientNet-Lite0 through the head of EfficientNet-Lite2.
_base_ = '../gfl/gfl_lite0_fpn-c64_8e_vehicles-416x416.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/gfl/gfl_lite2_fpn-c64_24e_vehicles-416x416.py',
                 checkpoint='work_dirs/gfl_lite2_fpn-c64_24e_vehicles-416x416/epoch_24.pth'),
    terms=[dict(type='CrossHead')])
