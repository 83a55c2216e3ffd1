# Half the resolution taught by the full one, same architecture, on VOC (Chen et al. 2017, Table 2). Train the teacher first.
_base_ = '../faster_rcnn/faster-rcnn_r50_fpn_1x_voc0712-500x300.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r50_fpn_1x_voc0712.py',
                 checkpoint='work_dirs/faster-rcnn_r50_fpn_1x_voc0712/epoch_4.pth',
                 scale_factor=2),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
# the teacher's view of each image comes with the student's
train_dataloader = dict(dataset=dict(dataset=dict(_delete_=True, type='TwoViewDataset', scale_factor=2,
                                                  dataset={{_base_.train_dataloader.dataset.dataset}})))
