# Vehicles: EfficientNet-Lite0, pre-trained: label-assignment distillation.
_base_ = '../paa/paa_lite0_fpn-c64_8e_vehicles-416x416.py'
model = dict(
    type='LADDistiller',
    teacher=dict(config='configs/paa/paa_lite2_fpn-c64_24e_vehicles-416x416.py',
                 checkpoint='work_dirs/paa_lite2_fpn-c64_24e_vehicles-416x416/epoch_24.pth',
                 # all mixtures of a batch are fitted at once
                 cfg_options={'model.bbox_head.type': 'BatchedPAAHead'}))
