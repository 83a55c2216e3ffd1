# Pseudo-labels and soft targets: the teacher's boxes as labels, its distributions and features beside them.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240-labels20_pseudo.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/unlabelled/faster-rcnn_r18_fpn-c64_12e_bccd-320x240-labels20.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240-labels20/epoch_12.pth'),
    rpn_distill=dict(), rcnn_distill=dict(), hints=[dict(layer='neck')], unlabelled=dict(weight=1.0))
unlabelled_dataloader = dict(
    batch_size=4, num_workers=2, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='UnlabelledImages', ann_file='data/bccd-labels20/unlabelled.json',
                 data_prefix=dict(img='data/bccd/images/'), pipeline={{_base_.train_pipeline}}))
