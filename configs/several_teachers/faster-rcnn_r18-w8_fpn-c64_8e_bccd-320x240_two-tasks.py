# BCCD: a teacher of red cells and one of the others, each asked about its own classes, both annealed (BAM).
_base_ = '../faster_rcnn/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240.py'
model = dict(
    type='FasterRCNNDistiller',
    sources=dict(
        red=dict(config='configs/several_teachers/faster-rcnn_r18_fpn-c64_12e_bccd-320x240-rbc.py',
                 checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240-rbc/epoch_12.pth'),
        others=dict(config='configs/several_teachers/faster-rcnn_r18_fpn-c64_12e_bccd-320x240-wbc-platelets.py',
                    checkpoint='work_dirs/faster-rcnn_r18_fpn-c64_12e_bccd-320x240-wbc-platelets/epoch_12.pth'),
        both=dict(type='Ensemble', members=dict(red=dict(classes=[0]), others=dict(classes=[1, 2])))),
    rpn_distill=dict(source='both', hard_weight='anneal'),
    rcnn_distill=dict(source='both', hard_weight='anneal'))
