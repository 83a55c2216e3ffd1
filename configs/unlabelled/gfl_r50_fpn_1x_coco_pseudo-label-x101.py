# COCO: GFL ResNet-50 learns in every step from the boxes of a Faster R-CNN, ResNeXt-101, on train2017 and unlabeled2017.
_base_ = '../gfl/gfl_r50_fpn_1x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::faster_rcnn/faster-rcnn_x101-64x4d_fpn_2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_x101_64x4d_fpn_2x_coco/faster_rcnn_x101_64x4d_fpn_2x_coco_20200512_161033-5961fa95.pth'),
    terms=[dict(type='PseudoLabel')],
    unlabelled=dict(weight=1.0))
unlabelled_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='UnlabelledImages', data_prefix=dict(img='data/coco/unlabeled2017/'),
                 pipeline={{_base_.train_pipeline}}))
