# COCO: as many pseudo-labelled images of unlabeled2017 in a batch as labelled ones, middling boxes ignored.
_base_ = '../faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(train_cfg=dict(
    rpn=dict(assigner=dict(_delete_=True, type='IgnoringAssigner', assigner=dict(
        type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True,
        ignore_iof_thr=-1))),
    rcnn=dict(assigner=dict(_delete_=True, type='IgnoringAssigner', assigner=dict(
        type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False,
        ignore_iof_thr=-1)))))
train_dataloader = dict(
    batch_sampler=None,  # one by aspect ratio would undo the shares
    sampler=dict(_delete_=True, type='SourceRatioSampler', batch_size=2, source_ratio=[1, 1]),  # labelled, pseudo
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[
        dict(type='CocoDataset', data_root='data/coco/', ann_file=name, data_prefix=dict(img=folder),
             filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline={{_base_.train_pipeline}})
        for name, folder in (('annotations/instances_train2017.json', 'train2017/'),
                             ('pseudo/unlabeled2017.json', 'unlabeled2017/'))]))
