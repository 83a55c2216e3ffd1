# PAA ResNet-18 and ResNet-50 train together (CoLAD): Fisher's ratio of a two-component fit to the costs says who assigns.
_base_ = './paa_r18_fpn_1x_coco_colad-r50.py'
model = dict(criterion=dict(type='FisherCriterion'))
