# PAA ResNet-50 and ResNet-101 train together (CoLAD): Fisher's ratio of a two-component fit to the costs says who assigns.
_base_ = './paa_r50_fpn_1x_coco_colad-r101.py'
model = dict(criterion=dict(type='FisherCriterion'))
