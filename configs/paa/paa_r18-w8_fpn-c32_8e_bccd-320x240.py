# BCCD, the smaller detector: ResNet-18 with 8 base channels (an eighth of the width), 32-channel FPN, 320x240.
_base_ = ['../_base_/models/paa_r18_fpn-c64_scratch.py', '../_base_/datasets/bccd_320x240.py',
          '../_base_/schedules/adamw_8e.py', '../_base_/default_runtime.py']
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=32),
    bbox_head=dict(num_classes=3, in_channels=32, feat_channels=32))
