# BCCD: 16 base channels, with a teacher of half its width: label assignment and soft labels.
_base_ = './paa_r18-w16_fpn-c32_8e_bccd-320x240_lad-r18-w8.py'
model = dict(soft_label=dict())
