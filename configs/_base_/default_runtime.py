# MMDetection's runtime for the small recipes: shorter log interval, and the seed stated.
_base_ = ['mmdet::_base_/default_runtime.py', './kd_det.py']
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=1))
randomness = dict(seed=0)
