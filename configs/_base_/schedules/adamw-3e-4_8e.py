# As adamw_8e.py with the learning rate for pre-trained backbones.
_base_ = './adamw_8e.py'
optim_wrapper = dict(optimizer=dict(lr=3e-4))
