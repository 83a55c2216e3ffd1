# Vehicles: PAA, ResNet-18 with 8 base channels, from scratch, 64-channel FPN, 416x416, anchors of COCO's sizes.
_base_ = ['../_base_/models/paa_r18_fpn-c64_scratch.py', '../_base_/datasets/vehicles_416x416.py',
          '../_base_/schedules/adamw-3e-4_8e.py', '../_base_/default_runtime.py']
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels='auto'),
    bbox_head=dict(num_classes=5, anchor_generator=dict(octave_base_scale=8)))
