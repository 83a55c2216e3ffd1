"""A folder of images with annotations of some kind, made COCO's format, checked and described.

====================  ==============================================================
:mod:`.found`         what a reader finds: objects, pictures, parts of a data set
:mod:`.files`         the files of a folder; which picture belongs to which annotation
:mod:`.parts`         which of them is for training, validation, test
:mod:`.coco`          COCO JSON        :mod:`.voc`   Pascal VOC XML
:mod:`.yolo`          YOLO txt         :mod:`.names` class names that lie beside them
:mod:`.formats`       which of the three a folder holds
:mod:`.checking`      what is wrong with it, in words
:mod:`.splitting`     a train and a validation part where there are none
:mod:`.statistics`    images, boxes, classes, sizes
:mod:`.as_coco`       a part in COCO's format
:mod:`.prepare`       all of it, written as COCO JSON
====================  ==============================================================
"""
