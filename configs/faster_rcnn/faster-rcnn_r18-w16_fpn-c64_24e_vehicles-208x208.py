# Vehicles: Faster R-CNN, ResNet-18 with 16 base channels, from scratch, 64-channel FPN, 208x208, 24 epochs.
_base_ = ['../_base_/models/faster-rcnn_r18_fpn-c64_scratch.py', '../_base_/datasets/vehicles_208x208.py',
          '../_base_/schedules/adamw_24e.py', '../_base_/default_runtime.py']
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels='auto'),
    rpn_head=dict(anchor_generator=dict(scales=[8])),
    roi_head=dict(bbox_head=dict(num_classes=5)))
