# BCCD, the smaller detector: ResNet-18 with 16 base channels (a quarter of the width), 160x120.
_base_ = ['../_base_/models/faster-rcnn_r18_fpn-c64_scratch.py', '../_base_/datasets/bccd_160x120.py',
          '../_base_/schedules/adamw_8e.py', '../_base_/default_runtime.py']
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=dict(num_classes=3)))
