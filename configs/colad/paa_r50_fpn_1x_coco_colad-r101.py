# PAA ResNet-50 and ResNet-101 train together (CoLAD, Nguyen et al. 2022): std / mean of the costs says who assigns.
_base_ = '../paa/paa_r50_fpn_1x_coco.py'
model = dict(
    type='CoLAD',
    peer=dict(config='configs/paa/paa_r101_fpn_1x_coco.py', checkpoint=None),
    criterion=dict(type='StdMeanCriterion'))
