# BCCD: CrossKD, PAA; 1x1 convolutions carry 32 channels to the 64 of the teacher's head.
_base_ = '../paa/paa_r18-w8_fpn-c32_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/paa/paa_r18_fpn-c64_8e_bccd-320x240.py',
                 checkpoint='work_dirs/paa_r18_fpn-c64_8e_bccd-320x240/epoch_8.pth'),
    terms=[dict(type='CrossHead')])
