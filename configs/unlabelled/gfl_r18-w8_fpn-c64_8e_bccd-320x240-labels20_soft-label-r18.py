# The same under the larger GFL: soft labels, in every step on four of the other images too.
_base_ = './gfl_r18-w8_fpn-c64_8e_bccd-320x240-labels20.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/unlabelled/gfl_r18_fpn-c64_12e_bccd-320x240-labels20.py',
                 checkpoint='work_dirs/gfl_r18_fpn-c64_12e_bccd-320x240-labels20/epoch_12.pth'),
    terms=[dict(type='SoftLabel')],
    unlabelled=dict(weight=1.0))
unlabelled_dataloader = dict(
    batch_size=4, num_workers=2, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='UnlabelledImages', ann_file='data/bccd-labels20/unlabelled.json',
                 data_prefix=dict(img='data/bccd/images/'), pipeline={{_base_.train_pipeline}}))
