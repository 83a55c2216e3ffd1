# BCCD, the larger detector: ResNet-18, 64-channel FPN, 320x240.
_base_ = ['../_base_/models/faster-rcnn_r18_fpn-c64_scratch.py', '../_base_/datasets/bccd_320x240.py',
          '../_base_/schedules/adamw_8e.py', '../_base_/default_runtime.py']
model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
