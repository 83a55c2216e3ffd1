# FCOS ResNet-50 under ResNet-101: BCKD, and the centerness at positives.
_base_ = '../fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/fcos/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco-511424d6.pth'),
    terms=[dict(type='BCKD')])
