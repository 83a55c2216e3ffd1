# The long tail, second stage of class-balanced distillation: balanced sampling under the features of plain sampling.
_base_ = './faster-rcnn_lite0_fpn-c64_8e_vehicles-208x208-tail20_balanced.py'
model = dict(
    type='Distiller',
    student_type='FasterRCNN',
    teacher=dict(config='configs/class_balanced/faster-rcnn_lite0_fpn-c64_8e_vehicles-208x208-tail20.py',
                 checkpoint='work_dirs/faster-rcnn_lite0_fpn-c64_8e_vehicles-208x208-tail20/epoch_8.pth'),
    terms=[dict(type='ClassBalancedDistillation', alpha=0.4, beta=100.)])
