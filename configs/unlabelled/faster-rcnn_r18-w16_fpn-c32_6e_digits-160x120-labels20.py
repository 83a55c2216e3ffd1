# Digits, the student with the labels of 20 % of the training images alone, for as many steps as with all of them.
_base_ = '../faster_rcnn/faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120.py'
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=5,
    dataset=dict(
        type='CocoDataset', metainfo={{_base_.metainfo}}, ann_file='data/digits-labels20/labelled.json',
        data_prefix=dict(img='data/digits/images/'), filter_cfg=dict(filter_empty_gt=False),
        pipeline={{_base_.train_pipeline}})))
