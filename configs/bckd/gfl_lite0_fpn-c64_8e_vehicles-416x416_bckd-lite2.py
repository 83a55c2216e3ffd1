# Vehicles, GFL EfficientNet-Lite0 under Lite2, both pre-trained: BCKD.
_base_ = '../gfl/gfl_lite0_fpn-c64_8e_vehicles-416x416.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/gfl/gfl_lite2_fpn-c64_24e_vehicles-416x416.py',
                 checkpoint='work_dirs/gfl_lite2_fpn-c64_24e_vehicles-416x416/epoch_24.pth'),
    terms=[dict(type='BCKD')])
