# Digits, full resolution: ResNet-18 with 16 base channels, 32-channel FPN, 320x240: a teacher
# for students at half the resolution.
_base_ = ['../_base_/models/faster-rcnn_r18_fpn-c64_scratch.py', '../_base_/datasets/digits_320x240.py',
          '../_base_/schedules/adamw_10e.py', '../_base_/default_runtime.py']
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    # the smallest digits have 6 pixels at 160x120; anchors of 8 pixels there are the teacher's P3 anchors of 16, so that
    # the objects which the student finds on P2 are those the teacher finds on a level with a partner
    rpn_head=dict(in_channels=32, feat_channels=32, anchor_generator=dict(scales=[2])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, num_classes=10)))
