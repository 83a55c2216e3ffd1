# BCCD, RetinaNet of 8 base channels under 64: BCKD.
_base_ = '../retinanet/retinanet_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/retinanet/retinanet_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/retinanet_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    terms=[dict(type='BCKD')])
