# GFL: the teacher with the labels of 20 % of BCCD's training images, repeated to as many steps as with all of them.
_base_ = '../gfl/gfl_r18_fpn-c64_12e_bccd-320x240.py'
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=5,
    dataset=dict(
        type='CocoDataset', metainfo={{_base_.metainfo}}, ann_file='data/bccd-labels20/labelled.json',
        data_prefix=dict(img='data/bccd/images/'), filter_cfg=dict(filter_empty_gt=False),
        pipeline={{_base_.train_pipeline}})))
