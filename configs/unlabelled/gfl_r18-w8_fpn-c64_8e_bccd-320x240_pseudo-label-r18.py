# BCCD, GFL under a Faster R-CNN: the teacher's final boxes as objects of the student's own loss.
_base_ = '../gfl/gfl_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240/epoch_12.pth'),
    terms=[dict(type='PseudoLabel')])
