# RTMDet-tiny under RTMDet-m's label assignment.
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', '../_base_/kd_det.py']
model = dict(
    type='LADDistiller',
    teacher=dict(config='mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_m_8xb32-300e_coco/rtmdet_m_8xb32-300e_coco_20220719_112220-229f527c.pth'))
auto_scale_lr = dict(base_batch_size=256)  # 8 GPUs of 32 images; the 16 that it inherits is of the 1x schedule
