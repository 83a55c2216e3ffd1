# BCCD, white cells and platelets: a teacher of another task.
_base_ = './faster-rcnn_r18_fpn-c64_12e_bccd-320x240-rbc.py'
metainfo = dict(_delete_=True, classes=('WBC', 'Platelets'))
model = dict(roi_head=dict(bbox_head=dict(num_classes=2)))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
