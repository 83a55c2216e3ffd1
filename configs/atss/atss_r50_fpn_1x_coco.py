# MMDetection's own ATSS R50, on stacks without compiled ops too.
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', '../_base_/kd_det.py']
# COCO has a few boxes without area, which MMDetection leaves out
data_check = dict(zero_size_boxes='skip')
