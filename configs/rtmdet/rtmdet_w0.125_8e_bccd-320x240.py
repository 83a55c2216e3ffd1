# BCCD, the smaller RTMDet: half the width of rtmdet_w0.25_8e_bccd-320x240.py.
_base_ = './rtmdet_w0.25_8e_bccd-320x240.py'
model = dict(
    backbone=dict(widen_factor=0.125),
    neck=dict(in_channels=[32, 64, 128], out_channels=32),
    bbox_head=dict(in_channels=32, feat_channels=32))
