# As retinanet_r50_fpn_1x_coco_fgd-x101.py, beginning with the teacher's neck and head where shapes agree, as published.
_base_ = './retinanet_r50_fpn_1x_coco_fgd-x101.py'
model = dict(teacher=dict(inherit=['neck', 'bbox_head']))
