# Pseudo-labels of which each counts the teacher's score.
_base_ = './faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240-labels20_pseudo.py'
train_dataloader = dict(dataset=dict(datasets=[
    dict(type='ScoredCocoDataset', metainfo={{_base_.metainfo}}, ann_file=name, data_prefix=dict(img='data/bccd/images/'),
         filter_cfg=dict(filter_empty_gt=False), pipeline={{_base_.train_pipeline}})
    for name in ('data/bccd-labels20/labelled.json', 'data/bccd-labels20/pseudo.json')]))
custom_hooks = [dict(type='ScoreWeightHook', power=1.0)]
