# BCCD: MGD on the neck, with the constants published for a Faster R-CNN's kind.
_base_ = '../faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    terms=[dict(type='Hint', layer='neck', adapter=None, loss=dict(type='MGDLoss'))])
