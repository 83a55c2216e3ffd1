# Digits: half the teacher's width: label assignment and soft labels.
_base_ = './paa_r18-w8_fpn-c32_6e_digits-160x120_lad-r18-w16.py'
model = dict(soft_label=dict())
