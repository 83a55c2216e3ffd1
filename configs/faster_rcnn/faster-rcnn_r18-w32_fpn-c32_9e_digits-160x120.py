# Digits, twice the width of faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120.py and 1.5 times its schedule. The
# quickstart's teacher.
_base_ = './faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120.py'
model = dict(backbone=dict(base_channels=32), neck=dict(in_channels=[32, 64, 128, 256]))
train_cfg = dict(max_epochs=9, val_interval=9)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=9, T_max=9, eta_min_ratio=0.01,
         convert_to_iter_based=True)]
