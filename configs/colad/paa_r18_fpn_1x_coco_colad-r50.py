# PAA ResNet-18 and ResNet-50 train together (CoLAD): std / mean of the costs says who assigns.
_base_ = '../paa/paa_r18_fpn_1x_coco.py'
model = dict(
    type='CoLAD',
    peer=dict(config='configs/paa/paa_r50_fpn_1x_coco.py', checkpoint=None),
    criterion=dict(type='StdMeanCriterion'))
