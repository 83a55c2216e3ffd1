# BCCD: CrossKD beside PKD on all five levels of the neck, GFL with 8 base channels, the published weights.
_base_ = './gfl_r18-w8_fpn-c64_8e_bccd-320x240_crosskd-r18.py'
model = dict(
    terms=[dict(type='CrossHead'),
           dict(type='Hint', layer='neck', levels=None, adapter=None, loss=dict(type='PKDLoss', loss_weight=6.))])
