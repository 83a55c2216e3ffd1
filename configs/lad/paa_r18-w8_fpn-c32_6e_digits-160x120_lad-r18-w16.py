# Digits: half the teacher's width: label-assignment distillation.
_base_ = '../paa/paa_r18-w8_fpn-c32_6e_digits-160x120.py'
model = dict(
    type='LADDistiller',
    teacher=dict(config='configs/paa/paa_r18-w16_fpn-c32_6e_digits-160x120.py',
                 checkpoint='work_dirs/paa_r18-w16_fpn-c32_6e_digits-160x120/epoch_6.pth',
                 # all mixtures of a batch are fitted at once
                 cfg_options={'model.bbox_head.type': 'BatchedPAAHead'}))
