# YOLOX-s under YOLOX-l: BCKD on class times objectness, and the objectness at positives.
_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py', '../_base_/kd_det.py']
model = dict(
    type='Distiller', student_type='YOLOX',
    teacher=dict(config='mmdet::yolox/yolox_l_8xb8-300e_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/yolox/yolox_l_8x8_300e_coco/yolox_l_8x8_300e_coco_20211126_140236-d3bd2b23.pth'),
    terms=[dict(type='BCKD')])
