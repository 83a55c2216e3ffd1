# BCCD, PAA of 8 base channels under 64: BCKD, and the IoU branch at positives.
_base_ = '../paa/paa_r18-w8_fpn-c32_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/paa/paa_r18_fpn-c64_8e_bccd-320x240.py',
                 checkpoint='work_dirs/paa_r18_fpn-c64_8e_bccd-320x240/epoch_8.pth'),
    terms=[dict(type='BCKD')])
