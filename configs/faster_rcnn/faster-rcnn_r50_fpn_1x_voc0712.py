# Faster R-CNN R50 on VOC 07+12 trainval, COCO-style mAP on 07 test. Make the annotation files first:
#   kd-det data voc data/VOCdevkit --sets 2007:trainval 2012:trainval \
#       --out data/VOCdevkit/annotations/voc0712_trainval.json
#   kd-det data voc data/VOCdevkit --sets 2007:test --out data/VOCdevkit/annotations/voc07_test.json
_base_ = ['mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712-cocofmt.py', '../_base_/kd_det.py']
# the base's evaluator has a key of VOCMetric, which CocoMetric refuses
val_evaluator = dict(_delete_=True, type='CocoMetric', ann_file='data/VOCdevkit/annotations/voc07_test.json',
                     metric='bbox')
test_evaluator = val_evaluator
