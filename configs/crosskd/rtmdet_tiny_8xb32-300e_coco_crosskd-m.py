# RTMDet-tiny under RTMDet-m: CrossKD, towers of 96 channels to 192 through the mapper.
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', '../_base_/kd_det.py']
model = dict(
    type='Distiller', student_type='RTMDet',
    teacher=dict(config='mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_m_8xb32-300e_coco/rtmdet_m_8xb32-300e_coco_20220719_112220-229f527c.pth'),
    terms=[dict(type='CrossHead')])
