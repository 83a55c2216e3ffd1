# 20 % of BCCD's labels, and what a teacher of these labels says about the other images, as boxes.
_base_ = '../faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(train_cfg=dict(
    rpn=dict(assigner=dict(_delete_=True, type='IgnoringAssigner', assigner=dict(
        type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True,
        ignore_iof_thr=-1))),
    rcnn=dict(assigner=dict(_delete_=True, type='IgnoringAssigner', assigner=dict(
        type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False,
        ignore_iof_thr=-1)))))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='SourceRatioSampler', batch_size=4, source_ratio=[2, 2]),  # labelled, pseudo
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[
        dict(type='CocoDataset', metainfo={{_base_.metainfo}}, ann_file=name, data_prefix=dict(img='data/bccd/images/'),
             filter_cfg=dict(filter_empty_gt=False), pipeline={{_base_.train_pipeline}})
        for name in ('data/bccd-labels20/labelled.json', 'data/bccd-labels20/pseudo.json')]))
