# BCCD: an eighth of the width, with ResNet-18 as teacher: label assignment and soft labels.
_base_ = './paa_r18-w8_fpn-c32_8e_bccd-320x240_lad-r18.py'
model = dict(soft_label=dict())
