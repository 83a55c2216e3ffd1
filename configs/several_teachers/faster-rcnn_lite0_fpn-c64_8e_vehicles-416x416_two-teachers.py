# Vehicles: soft targets from two pre-trained teachers of different families, weighted object by object by their sureness.
_base_ = '../faster_rcnn/faster-rcnn_lite0_fpn-c64_8e_vehicles-416x416.py'
model = dict(
    type='FasterRCNNDistiller',
    sources=dict(
        a=dict(config='configs/faster_rcnn/faster-rcnn_lite2_fpn-c64_12e_vehicles-416x416.py',
               checkpoint='work_dirs/faster-rcnn_lite2_fpn-c64_12e_vehicles-416x416/epoch_12.pth'),
        b=dict(config='configs/faster_rcnn/faster-rcnn_mobilenetv2_fpn-c64_12e_vehicles-416x416.py',
               checkpoint='work_dirs/faster-rcnn_mobilenetv2_fpn-c64_12e_vehicles-416x416/epoch_12.pth'),
        both=dict(type='Ensemble', members=['a', 'b'], confidence=0.1)),
    rpn_distill=dict(source='both'),
    rcnn_distill=dict(source='both'))
