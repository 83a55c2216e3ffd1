# LD, the published pair GFL R101 <- R101 with deformable convolutions, the main region alone.
_base_ = '../gfl/gfl_r101_fpn_ms-2x_coco.py'
model = dict(
    type='Distiller',
    teacher=dict(config='mmdet::gfl/gfl_r101-dconv-c3-c5_fpn_ms-2x_coco.py',
                 checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco/gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20200630_102002-134b07df.pth'),
    terms=[dict(type='LD', vlr=None, cls=None)])
