# BCCD: an eighth of the width, with twice that width as teacher: label-assignment distillation.
_base_ = '../paa/paa_r18-w8_fpn-c32_8e_bccd-320x240.py'
model = dict(
    type='LADDistiller',
    teacher=dict(config='configs/paa/paa_r18-w16_fpn-c32_8e_bccd-320x240.py',
                 checkpoint='work_dirs/paa_r18-w16_fpn-c32_8e_bccd-320x240/epoch_8.pth',
                 # all mixtures of a batch are fitted at once
                 cfg_options={'model.bbox_head.type': 'BatchedPAAHead'}))
