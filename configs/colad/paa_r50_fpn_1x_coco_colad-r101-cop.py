# PAA ResNet-50 and ResNet-101 train together (CoLAD), both with conditional objectness.
_base_ = './paa_r50_fpn_1x_coco_colad-r101.py'
model = dict(
    bbox_head=dict(type='COPHead'),
    peer=dict(cfg_options={'model.bbox_head.type': 'COPHead'}))
