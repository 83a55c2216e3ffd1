# Vehicles, 208x208, GFL: CrossKD beside PKD on all five levels of the neck, EfficientNet-Lite0, the published weights.
_base_ = './gfl_lite0_fpn-c64_8e_vehicles-208x208_crosskd-lite2.py'
model = dict(
    terms=[dict(type='CrossHead'),
           dict(type='Hint', layer='neck', levels=None, adapter=None, loss=dict(type='PKDLoss', loss_weight=6.))])
