# BCCD, red cells alone: a teacher of one task.
_base_ = '../faster_rcnn/faster-rcnn_r18_fpn-c64_12e_bccd-320x240.py'
metainfo = dict(_delete_=True, classes=('RBC',))
model = dict(roi_head=dict(bbox_head=dict(num_classes=1)))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
