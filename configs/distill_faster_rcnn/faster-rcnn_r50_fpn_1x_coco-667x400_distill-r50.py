# Half the resolution taught by the full one, same architecture (Chen et al. 2017, Table 2).
_base_ = '../faster_rcnn/faster-rcnn_r50_fpn_1x_coco-667x400.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth',
                 scale_factor=2),
    rpn_distill=dict(),
    rcnn_distill=dict(),
    hints=[dict(layer='neck')])
# the teacher's view of each image comes with the student's
train_dataloader = dict(dataset=dict(_delete_=True, type='TwoViewDataset', scale_factor=2,
                                     dataset={{_base_.train_dataloader.dataset}}))
