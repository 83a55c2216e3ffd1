# PKD from a teacher of another family on the neck's first four levels, the published weight.
_base_ = '../retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::fcos/fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/fcos/fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco/fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco-ede514a8.pth'),
    terms=[dict(type='Hint', layer='neck', levels=[0, 1, 2, 3], adapter=None, loss=dict(type='PKDLoss', loss_weight=10.))])
