# BCCD, the larger detector trained longer: the teacher of the accuracy study.
_base_ = './gfl_r18_fpn-c64_8e_bccd-320x240.py'
train_cfg = dict(max_epochs=12, val_interval=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=12, T_max=12, eta_min_ratio=0.01,
         convert_to_iter_based=True)]
