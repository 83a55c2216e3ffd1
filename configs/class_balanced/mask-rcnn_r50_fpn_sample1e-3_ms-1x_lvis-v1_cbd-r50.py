# LVIS v1, second stage of class-balanced distillation: balanced sampling, under a teacher of plain sampling. MMDetection's
# config samples by ClassBalancedDataset (oversample_thr=1e-3); the teacher is the same network trained on its inner data set.
_base_ = 'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py'
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
model = dict(
    type='Distiller',
    student_type='MaskRCNN',
    teacher=dict(config='mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
                 checkpoint='work_dirs/mask-rcnn_r50_fpn_plain-sampling_lvis-v1/epoch_12.pth'),
    terms=[dict(type='ClassBalancedDistillation', alpha=0.4, beta=100.)])
