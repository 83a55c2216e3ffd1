# BCCD: PKD on the neck's first four levels, the published weight of a Faster R-CNN pair.
_base_ = '../faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    terms=[dict(type='Hint', layer='neck', levels=[0, 1, 2, 3], adapter=None, loss=dict(type='PKDLoss', loss_weight=6.))])
