# BCCD, GFL: PKD on the neck's first four levels, the published weight of a one-stage pair.
_base_ = '../gfl/gfl_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/gfl/gfl_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/gfl_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    terms=[dict(type='Hint', layer='neck', adapter=None, loss=dict(type='PKDLoss'))])
