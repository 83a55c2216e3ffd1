# GFL: the student with the labels of 20 % of BCCD's training images alone, for as many steps as with all of them.
_base_ = '../gfl/gfl_r18-w8_fpn-c64_8e_bccd-320x240.py'
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=5,
    dataset=dict(
        type='CocoDataset', metainfo={{_base_.metainfo}}, ann_file='data/bccd-labels20/labelled.json',
        data_prefix=dict(img='data/bccd/images/'), filter_cfg=dict(filter_empty_gt=False),
        pipeline={{_base_.train_pipeline}})))
