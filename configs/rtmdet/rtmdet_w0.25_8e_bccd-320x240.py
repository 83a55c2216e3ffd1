# BCCD, the larger RTMDet: a quarter of RTMDet-l's width, 320x240.
_base_ = ['../_base_/models/rtmdet_w0.25_scratch.py', '../_base_/datasets/bccd_320x240.py',
          '../_base_/schedules/adamw_8e.py', '../_base_/default_runtime.py']
model = dict(bbox_head=dict(num_classes=3))
