# RTMDet-s and RTMDet-tiny train together (CoLAD): std / mean of an object's costs says which network assigns it.
_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', '../_base_/kd_det.py']
model = dict(
    type='CoLAD',
    peer=dict(config='mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', checkpoint=None),
    criterion=dict(type='StdMeanCriterion'))
