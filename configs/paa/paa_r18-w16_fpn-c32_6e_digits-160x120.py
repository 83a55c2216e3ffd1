# Digits, twice the width of paa_r18-w8_fpn-c32_6e_digits-160x120.py: ResNet-18 with 16 base channels, 32-channel FPN.
_base_ = './paa_r18-w8_fpn-c32_6e_digits-160x120.py'
model = dict(backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]))
