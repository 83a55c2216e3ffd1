# As adamw_24e.py with the learning rate for pre-trained backbones.
_base_ = './adamw_24e.py'
optim_wrapper = dict(optimizer=dict(lr=3e-4))
