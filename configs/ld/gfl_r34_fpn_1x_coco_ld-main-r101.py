# As gfl_r34_fpn_1x_coco_ld-r101.py, the main region alone.
_base_ = './gfl_r34_fpn_1x_coco_ld-r101.py'
model = dict(terms=[dict(type='LD', vlr=None, cls=None)])
