# RTMDet-s and RTMDet-tiny train together (CoLAD): std / mean of an object's costs says which network assigns it.
_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', '../_base_/kd_det.py']
model = dict(
    type='CoLAD',
    peer=dict(config='mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', checkpoint=None),
    criterion=dict(type='StdMeanCriterion'))
auto_scale_lr = dict(base_batch_size=256)  # 8 GPUs of 32 images; the 16 that it inherits is of the 1x schedule
