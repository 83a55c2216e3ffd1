# BCCD: half the teacher's width: label-assignment distillation on a head other than PAA's.
_base_ = '../rtmdet/rtmdet_w0.125_8e_bccd-320x240.py'
model = dict(
    type='LADDistiller',
    teacher=dict(config='configs/rtmdet/rtmdet_w0.25_8e_bccd-320x240.py',
                 checkpoint='work_dirs/rtmdet_w0.25_8e_bccd-320x240/epoch_8.pth'))
