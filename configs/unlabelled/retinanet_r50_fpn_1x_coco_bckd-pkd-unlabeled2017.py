# COCO: RetinaNet ResNet-50 under ResNeXt-101, BCKD and PKD on train2017 and on as many images of unlabeled2017.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
model = dict(
    type='Distiller', student_type='RetinaNet',
    teacher=dict(config='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_1x_coco/retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth'),
    terms=[dict(type='BCKD'), dict(type='Hint', layer='neck', adapter=None, loss=dict(type='PKDLoss'))],
    unlabelled=dict(weight=1.0))
unlabelled_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='UnlabelledImages', data_prefix=dict(img='data/coco/unlabeled2017/'),
                 pipeline={{_base_.train_pipeline}}))
