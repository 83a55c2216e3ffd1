# Vehicles: EfficientNet-Lite0, pre-trained, half the teacher's resolution, every term on.
_base_ = '../faster_rcnn/faster-rcnn_lite0_fpn-c64_8e_vehicles-208x208.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_lite2_fpn-c64_24e_vehicles-416x416.py',
                 checkpoint='work_dirs/faster-rcnn_lite2_fpn-c64_24e_vehicles-416x416/epoch_24.pth',
                 scale_factor=2),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
# the teacher's view of each image comes with the student's
train_dataloader = dict(dataset=dict(_delete_=True, type='TwoViewDataset', scale_factor=2,
                                     dataset={{_base_.train_dataloader.dataset}}))
