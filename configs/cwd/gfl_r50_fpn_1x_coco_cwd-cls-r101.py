# CWD on the class logits of GFL, with the constants of the published 40.2 -> 41.9.
_base_ = '../gfl/gfl_r50_fpn_1x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth'),
    terms=[dict(type='Hint', layer='bbox_head.gfl_cls', adapter=None, loss=dict(type='CWDLoss'))])
