# PAA ResNet-101, which is deployed, and ResNet-50 train together for 24 epochs (CoLAD, Nguyen et al. 2022).
_base_ = '../paa/paa_r101_fpn_2x_coco.py'
model = dict(
    type='CoLAD',
    peer=dict(config='configs/paa/paa_r50_fpn_1x_coco.py', checkpoint=None),
    criterion=dict(type='StdMeanCriterion'))
