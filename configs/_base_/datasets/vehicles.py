# Vehicles (Open Images): 439 training and 188 evaluation photographs of 416x416 pixels, five classes, objects of about a
# third of the side. Trained on train.json and reported on eval.json; whatever is chosen is chosen on fit.json -> dev.json,
# which are parts of train.
_base_ = './coco_format.py'
data_root = 'data/vehicles/'
metainfo = dict(classes=('Ambulance', 'Bus', 'Car', 'Motorcycle', 'Truck'),
                palette=[(220, 20, 60), (0, 0, 142), (255, 179, 0), (0, 160, 80), (140, 60, 200)])
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/eval.json')
test_evaluator = val_evaluator
