# As retinanet_lite2_fpn-c64_8e_vehicles-416x416.py, 24 epochs.
_base_ = './retinanet_lite2_fpn-c64_8e_vehicles-416x416.py'
train_cfg = dict(max_epochs=24, val_interval=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=24, T_max=24, eta_min_ratio=0.01,
         convert_to_iter_based=True)]
