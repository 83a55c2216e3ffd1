# PAA ResNet-50 under ResNet-101's label assignment (LAD, Nguyen et al. 2022).
_base_ = '../paa/paa_r50_fpn_1x_coco.py'
model = dict(
    type='LADDistiller',
    teacher=dict(config='mmdet::paa/paa_r101_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/paa/paa_r101_fpn_1x_coco/paa_r101_fpn_1x_coco_20200821-0a1825a4.pth',
                 # all mixtures of a batch are fitted at once
                 cfg_options={'model.bbox_head.type': 'BatchedPAAHead'}))
