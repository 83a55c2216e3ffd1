# BCCD: ResNet-18, with a teacher of an eighth of its width: label assignment and soft labels.
_base_ = './paa_r18_fpn-c64_8e_bccd-320x240_lad-r18-w8.py'
model = dict(soft_label=dict())
