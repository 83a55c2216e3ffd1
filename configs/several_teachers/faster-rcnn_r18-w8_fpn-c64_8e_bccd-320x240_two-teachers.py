# BCCD: soft targets from two teachers, the mean of their probabilities, the stronger one counting twice.
_base_ = '../faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='FasterRCNNDistiller',
    sources=dict(
        a=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py',
               checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
        b=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64_8e_bccd-320x240.py',
               checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_8e_bccd-320x240/epoch_8.pth'),
        both=dict(type='Ensemble', members=dict(a=dict(weight=2.), b=dict(weight=1.)))),
    rpn_distill=dict(source='both'),
    rcnn_distill=dict(source='both'))
