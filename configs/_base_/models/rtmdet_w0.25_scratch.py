# RTMDet with a quarter of RTMDet-l's width and RTMDet-tiny's depth, trained from scratch on one process: plain BatchNorm
# in place of the synchronised one; otherwise the values of mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py (which brings a
# data set along and so cannot be combined with another one).
model = dict(
    type='RTMDet',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False,
        pad_size_divisor=32),
    backbone=dict(
        type='CSPNeXt', arch='P5', expand_ratio=0.5, deepen_factor=0.167, widen_factor=0.25, channel_attention=True,
        norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU', inplace=True)),
    neck=dict(
        type='CSPNeXtPAFPN', in_channels=[64, 128, 256], out_channels=64, num_csp_blocks=1, expand_ratio=0.5,
        norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU', inplace=True)),
    bbox_head=dict(
        type='RTMDetSepBNHead', num_classes=80, in_channels=64, feat_channels=64, stacked_convs=2, share_conv=True,
        with_objectness=False, exp_on_reg=False, pred_kernel_size=1,
        norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU', inplace=True),
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(
        assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.001, nms=dict(type='nms', iou_threshold=0.65), max_per_img=300))
