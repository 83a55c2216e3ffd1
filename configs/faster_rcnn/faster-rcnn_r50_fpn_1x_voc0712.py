# Faster R-CNN R50 on VOC 07+12 trainval, COCO-style mAP on 07 test. Make the annotation files first:
#   python tools/datasets/voc_to_coco.py data/VOCdevkit --sets 2007:trainval 2012:trainval \
#       --out data/VOCdevkit/annotations/voc0712_trainval.json
#   python tools/datasets/voc_to_coco.py data/VOCdevkit --sets 2007:test --out data/VOCdevkit/annotations/voc07_test.json
_base_ = ['mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712-cocofmt.py', '../_base_/kd_det.py']
