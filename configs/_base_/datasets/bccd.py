# Blood cells (BCCD): 205 training and 159 evaluation images of 640x480 pixels, three imbalanced classes. Trained
# on train.json and reported on eval.json; whatever is chosen is chosen on fit.json -> dev.json, which are parts of train.
_base_ = './coco_format.py'
data_root = 'data/bccd/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'),
                palette=[(220, 20, 60), (0, 0, 142), (255, 179, 0)])
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/eval.json')
test_evaluator = val_evaluator
