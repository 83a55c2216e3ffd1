# The same, and on four of the other images in every step: soft targets at the teacher's proposals, and the hint.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240-labels20_distill-r18.py'
model = dict(unlabelled=dict(weight=1.0))
unlabelled_dataloader = dict(
    batch_size=4, num_workers=2, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='UnlabelledImages', ann_file='data/bccd-labels20/unlabelled.json',
                 data_prefix=dict(img='data/bccd/images/'), pipeline={{_base_.train_pipeline}}))
