# BCCD, GFL, 8 base channels: LD and PKD together.
_base_ = './gfl_r18-w8_fpn-c64_8e_bccd-320x240_ld-r18.py'
model = dict(terms=[dict(type='LD'), dict(type='Hint', layer='neck', adapter=None, loss=dict(type='PKDLoss'))])
