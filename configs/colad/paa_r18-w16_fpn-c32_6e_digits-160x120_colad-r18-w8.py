# Digits: two narrow PAA detectors, one twice as wide as the other, train together (CoLAD, std / mean).
_base_ = '../paa/paa_r18-w16_fpn-c32_6e_digits-160x120.py'
model = dict(
    type='CoLAD',
    peer=dict(config='configs/paa/paa_r18-w8_fpn-c32_6e_digits-160x120.py', checkpoint=None),
    criterion=dict(type='StdMeanCriterion'))
