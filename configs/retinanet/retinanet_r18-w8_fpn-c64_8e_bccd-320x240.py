# BCCD, a student at the teacher's resolution: RetinaNet, ResNet-18 with 8 base channels (an eighth of the width), 320x240.
_base_ = './retinanet_r18_fpn-c64_8e_bccd-320x240.py'
model = dict(backbone=dict(base_channels=8))
