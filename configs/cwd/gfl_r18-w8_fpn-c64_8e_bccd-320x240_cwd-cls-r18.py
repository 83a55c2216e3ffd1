# BCCD, GFL: CWD on the class logits, with the published constants.
_base_ = '../gfl/gfl_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/gfl/gfl_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/gfl_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    terms=[dict(type='Hint', layer='bbox_head.gfl_cls', adapter=None, loss=dict(type='CWDLoss'))])
