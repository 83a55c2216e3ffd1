# BCCD: two narrow PAA detectors, the narrower one first, train together (CoLAD, std / mean).
_base_ = '../paa/paa_r18-w8_fpn-c32_8e_bccd-320x240.py'
model = dict(
    type='CoLAD',
    peer=dict(config='configs/paa/paa_r18-w16_fpn-c32_8e_bccd-320x240.py', checkpoint=None),
    criterion=dict(type='StdMeanCriterion'))
