# BCCD: the student at half the teacher's resolution, every term on, anchors of the cells' own sizes.
_base_ = '../faster_rcnn/faster-rcnn_r18-w16_fpn-c64-anchor3_8e_bccd-160x120.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64-anchor3_8e_bccd-320x240.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64-anchor3_8e_bccd-320x240/epoch_8.pth',
                 scale_factor=2),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
# the teacher's view of each image comes with the student's
train_dataloader = dict(dataset=dict(_delete_=True, type='TwoViewDataset', scale_factor=2,
                                     dataset={{_base_.train_dataloader.dataset}}))
