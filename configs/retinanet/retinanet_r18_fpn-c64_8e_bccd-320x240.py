# BCCD, the larger detector: RetinaNet, ResNet-18, 64-channel FPN, 320x240.
_base_ = ['../_base_/models/retinanet_r18_fpn-c64_scratch.py', '../_base_/datasets/bccd_320x240.py',
          '../_base_/schedules/adamw_8e.py', '../_base_/default_runtime.py']
model = dict(
    neck=dict(in_channels='auto'),
    # objects are a third as large as on COCO's 1333x800, so are the anchors: 16 to 406 pixels
    bbox_head=dict(num_classes=3, anchor_generator=dict(octave_base_scale=2)))
