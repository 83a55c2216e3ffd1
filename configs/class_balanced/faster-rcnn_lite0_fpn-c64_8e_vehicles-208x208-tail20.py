# Vehicles made a long tail, plain sampling: the first stage, and the teacher of the second.
_base_ = '../faster_rcnn/faster-rcnn_lite0_fpn-c64_8e_vehicles-208x208.py'
train_dataloader = dict(dataset=dict(
    _delete_=True, type='CocoDataset', metainfo={{_base_.metainfo}}, ann_file='data/vehicles-tail20/train_tail.json',
    data_prefix=dict(img='data/vehicles/images/'), filter_cfg=dict(filter_empty_gt=False),
    pipeline={{_base_.train_pipeline}}))
