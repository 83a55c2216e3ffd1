# PAA ResNet-101 under ResNet-50's label assignment and its soft labels (SoLAD, Nguyen et al. 2022).
_base_ = './paa_r101_fpn_1x_coco_lad-r50.py'
model = dict(soft_label=dict())
