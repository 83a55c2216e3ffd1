# The teacher of the pseudo-labels: BCCD with the labels of 20 % of its training images, repeated to as many steps.
_base_ = '../faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py'
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=5,
    dataset=dict(
        type='CocoDataset', data_root={{_base_.data_root}}, metainfo={{_base_.metainfo}},
        ann_file='annotations/train_20.json', data_prefix=dict(img='images/'), filter_cfg=dict(filter_empty_gt=False),
        pipeline={{_base_.train_pipeline}})))
