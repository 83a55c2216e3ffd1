# Vehicles, GFL EfficientNet-Lite0 under a Faster R-CNN with Lite2, both pre-trained: the teacher's boxes as pseudo-labels.
_base_ = '../gfl/gfl_lite0_fpn-c64_8e_vehicles-416x416.py'
model = dict(
    type='Distiller',
    teacher=dict(config='configs/faster_rcnn/faster-rcnn_lite2_fpn-c64_24e_vehicles-416x416.py',
                 checkpoint='work_dirs/faster-rcnn_lite2_fpn-c64_24e_vehicles-416x416/epoch_24.pth'),
    terms=[dict(type='PseudoLabel'), dict(type='Hint', layer='neck', adapter=None, loss=dict(type='PKDLoss'))])
