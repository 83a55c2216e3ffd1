# Digits, the smaller detector: ResNet-18 with 8 base channels, 32-channel FPN, 160x120.
_base_ = ['../_base_/models/paa_r18_fpn-c64_scratch.py', '../_base_/datasets/digits_160x120.py',
          '../_base_/schedules/adamw_6e.py', '../_base_/default_runtime.py']
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=32),
    # digits are half as large as blood cells at 320x240, so are the anchors: 16 to 256 pixels
    bbox_head=dict(num_classes=10, in_channels=32, feat_channels=32, anchor_generator=dict(octave_base_scale=2)))
