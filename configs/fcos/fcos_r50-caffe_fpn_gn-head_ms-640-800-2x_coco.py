# MMDetection's own FCOS R50, 24 epochs on images of several sizes, on stacks without compiled ops too.
_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py', '../_base_/kd_det.py']
# COCO has a few boxes without area, which MMDetection leaves out
data_check = dict(zero_size_boxes='skip')
