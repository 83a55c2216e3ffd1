# The same under the quickstart's teacher, and on two of the other images in every step soft targets and the hint.
_base_ = './faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120-labels20.py'
model = dict(
    type='FasterRCNNDistiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18-w32_fpn-c32_9e_digits-160x120.py',
                 checkpoint='work_dirs/faster-rcnn_r18-w32_fpn-c32_9e_digits-160x120/epoch_9.pth'),
    rpn_distill=dict(), rcnn_distill=dict(), hints=[dict(layer='neck', loss=dict(type='HintLoss', loss_weight=5.0))],
    unlabelled=dict(weight=1.0))
unlabelled_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='UnlabelledImages', ann_file='data/digits-labels20/unlabelled.json',
                 data_prefix=dict(img='data/digits/images/'), pipeline={{_base_.train_pipeline}}))
