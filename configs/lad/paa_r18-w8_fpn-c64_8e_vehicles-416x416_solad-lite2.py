# Vehicles: ResNet-18 with 8 base channels, from scratch: label assignment and soft labels.
_base_ = './paa_r18-w8_fpn-c64_8e_vehicles-416x416_lad-lite2.py'
model = dict(soft_label=dict())
