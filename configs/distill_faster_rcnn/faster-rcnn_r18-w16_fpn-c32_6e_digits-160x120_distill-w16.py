# Digits: the student at half the resolution of a teacher of the same architecture (Chen et al. 2017, Table 2), every
# term on.
_base_ = '../faster_rcnn/faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18-w16_fpn-c32_10e_digits-320x240.py',
                 checkpoint='work_dirs/faster-rcnn_r18-w16_fpn-c32_10e_digits-320x240/epoch_10.pth',
                 scale_factor=2),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
# the teacher's view of each image comes with the student's
train_dataloader = dict(dataset=dict(_delete_=True, type='TwoViewDataset', scale_factor=2,
                                     dataset={{_base_.train_dataloader.dataset}}))
