# A data set in COCO format as MMDetection's CocoDataset reads it: images/ and annotations/train.json, eval.json below
# data_root. A set's own file says root, classes and the name of its evaluation file; a file for each size adds the
# pipelines.
dataset_type = 'CocoDataset'
backend_args = None
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/'),
        # images without objects are training data too
        filter_cfg=dict(filter_empty_gt=False),
        backend_args=backend_args))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        ann_file='annotations/eval.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        backend_args=backend_args))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric',
    metric='bbox',
    format_only=False,
    classwise=True,
    backend_args=backend_args)
test_evaluator = val_evaluator
