# Vehicles: EfficientNet-Lite0, pre-trained: label assignment and soft labels.
_base_ = './paa_lite0_fpn-c64_8e_vehicles-416x416_lad-lite2.py'
model = dict(soft_label=dict())
