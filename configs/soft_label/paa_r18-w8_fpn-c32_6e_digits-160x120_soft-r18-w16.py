# Digits: half the teacher's width: soft labels alone, no ground-truth loss.
_base_ = '../paa/paa_r18-w8_fpn-c32_6e_digits-160x120.py'
model = dict(
    type='SoftLabelDistiller',
    teacher=dict(config='configs/paa/paa_r18-w16_fpn-c32_6e_digits-160x120.py',
                 checkpoint='work_dirs/paa_r18-w16_fpn-c32_6e_digits-160x120/epoch_6.pth'),
    soft_label=dict(min_iou=0.1))  # as the released run; the paper's text says 0.5
