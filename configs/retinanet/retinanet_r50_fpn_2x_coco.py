# MMDetection's own RetinaNet R50, 24 epochs, on stacks without compiled ops too.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', '../_base_/kd_det.py']
# COCO has a few boxes without area, which MMDetection leaves out
data_check = dict(zero_size_boxes='skip')
