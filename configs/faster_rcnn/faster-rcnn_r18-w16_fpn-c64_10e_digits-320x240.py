# Digits, full resolution: ResNet-18 with 16 base channels, 64-channel FPN, 320x240. The quickstart's teacher.
_base_ = ['../_base_/models/faster-rcnn_r18_fpn-c64_scratch.py', '../_base_/datasets/digits_320x240.py',
          '../_base_/schedules/adamw_10e.py', '../_base_/default_runtime.py']
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=dict(num_classes=10)))
