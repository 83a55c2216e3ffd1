# Vehicles: GFL, EfficientNet-Lite2, pre-trained, 64-channel FPN, 208x208, 24 epochs.
_base_ = ['../_base_/models/gfl_r18_fpn-c64_scratch.py', '../_base_/datasets/vehicles_208x208.py',
          '../_base_/schedules/adamw-3e-4_24e.py', '../_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(mean='auto', std='auto'),
    backbone=dict(
        _delete_=True, type='TimmBackbone', model_name='tf_efficientnet_lite2', norm_eval=True,
        checkpoint='data/pretrained/tf_efficientnet_lite2_imagenet.pth'),
    neck=dict(in_channels='auto'),
    bbox_head=dict(num_classes=5))
