# BCCD: two narrow PAA detectors, one twice as wide as the other, train together (CoLAD, Fisher).
_base_ = './paa_r18-w16_fpn-c32_8e_bccd-320x240_colad-r18-w8.py'
model = dict(criterion=dict(type='FisherCriterion'))
