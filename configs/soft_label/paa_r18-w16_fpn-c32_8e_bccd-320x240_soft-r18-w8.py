# BCCD: 16 base channels, with a teacher of half its width: soft labels alone, no ground-truth loss.
_base_ = '../paa/paa_r18-w16_fpn-c32_8e_bccd-320x240.py'
model = dict(
    type='SoftLabelDistiller',
    teacher=dict(config='configs/paa/paa_r18-w8_fpn-c32_8e_bccd-320x240.py',
                 checkpoint='work_dirs/paa_r18-w8_fpn-c32_8e_bccd-320x240/epoch_8.pth'),
    soft_label=dict(min_iou=0.1))  # as the released run; the paper's text says 0.5
