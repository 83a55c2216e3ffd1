# PAA ResNet-50 and ResNet-101 train together (CoLAD, Fisher), both with conditional objectness.
_base_ = './paa_r50_fpn_1x_coco_colad-r101-cop.py'
model = dict(criterion=dict(type='FisherCriterion'))
