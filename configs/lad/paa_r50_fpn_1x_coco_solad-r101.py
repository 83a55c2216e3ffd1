# PAA ResNet-50 under ResNet-101's label assignment and its soft labels (SoLAD, Nguyen et al. 2022).
_base_ = './paa_r50_fpn_1x_coco_lad-r101.py'
model = dict(soft_label=dict())
