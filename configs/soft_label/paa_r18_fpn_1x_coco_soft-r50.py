# PAA ResNet-18 that imitates ResNet-50's predictions, without losses of its own (Nguyen et al. 2022, the baseline).
_base_ = '../paa/paa_r18_fpn_1x_coco.py'
model = dict(
    type='SoftLabelDistiller',
    teacher=dict(config='mmdet::paa/paa_r50_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/paa/paa_r50_fpn_1x_coco/paa_r50_fpn_1x_coco_20200821-936edec3.pth'),
    soft_label=dict(min_iou=0.1))  # as the released run; the text says 0.5
