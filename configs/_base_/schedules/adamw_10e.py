# AdamW from scratch, 10 epochs: linear warm-up, then cosine decay to 1 % of the learning rate.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=10, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=10, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=10, T_max=10, eta_min_ratio=0.01,
         convert_to_iter_based=True)]
auto_scale_lr = dict(enable=False, base_batch_size=4)
