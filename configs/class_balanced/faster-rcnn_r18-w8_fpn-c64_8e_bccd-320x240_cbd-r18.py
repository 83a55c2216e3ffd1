# BCCD is a long tail by itself (2,381 red cells, 214 white cells, 209 platelets): balanced sampling of images under a
# teacher of plain sampling.
_base_ = '../faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    student_type='FasterRCNN',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    terms=[dict(type='ClassBalancedDistillation', alpha=0.4, beta=100.)])
train_dataloader = dict(dataset=dict(
    _delete_=True, type='ClassBalancedDataset', oversample_thr=0.5,
    dataset=dict(
        type='CocoDataset', data_root={{_base_.data_root}}, metainfo={{_base_.metainfo}},
        ann_file='annotations/train.json', data_prefix=dict(img='images/'), filter_cfg=dict(filter_empty_gt=False),
        pipeline={{_base_.train_pipeline}})))
