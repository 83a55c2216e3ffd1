"""Each key of a whole training config, misspelt, is refused before anything is built."""
import copy
import re

import pytest
import torch
from conftest import CLASSES, RUN_CONFIG, faster_rcnn_cfg
from mmengine.config import Config

from kd_det.config import check_keys
from kd_det.config_types import check_types
from kd_det.engine.paramwise_check import check_custom_keys
from kd_det.errors import ConfigError

EXTRA = """
optim_wrapper.update(clip_grad=dict(max_norm=35., norm_type=2), accumulative_counts=1, paramwise_cfg=dict(
    norm_decay_mult=0., custom_keys=dict(backbone=dict(lr_mult=0.1, decay_mult=1.))))
param_scheduler = [dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
                   dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)]
default_hooks.update(timer=dict(type='IterTimerHook'), param_scheduler=dict(type='ParamSchedulerHook'),
                     sampler_seed=dict(type='DistSamplerSeedHook'),
                     visualization=dict(type='DetVisualizationHook', draw=False))
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True, priority=49)]
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict())
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
auto_scale_lr = dict(enable=False, base_batch_size=16)
randomness.update(deterministic=False, diff_rank_seed=False)
train_dataloader.update(persistent_workers=False, pin_memory=True, drop_last=False,
                        batch_sampler=dict(type='AspectRatioBatchSampler'))
"""
ELSEWHERE = [
    r'custom_imports\.', r'(metainfo|train_pipeline|test_pipeline|data_root)($|\.)',  # MMEngine; the file's variables
    r'\w+_dataloader\.dataset\.(metainfo\.classes|data_prefix\.img)$',  # the data check
    r'optim_wrapper\.paramwise_cfg\.custom_keys\.backbone$',  # below, when the network is there
    r'model\.(data_preprocessor|backbone|neck|rpn_head|roi_head|train_cfg|test_cfg)$',  # the detector's own refusal
    r'model\..*\.(norm_cfg|roi_layer|nms)\.',  # classes that are called at once, and have few arguments
]
"""Keys that somebody else looks at."""


def misspelt(name: str) -> str:
    return name[:-2] + name[-1] + name[-2] if len(name) > 2 and name[-1] != name[-2] else name + name[-1]


def paths(value, path=()):
    """Where every key of nested dicts stands."""
    for name, part in value.items() if isinstance(value, dict) else enumerate(
            value if isinstance(value, (list, tuple)) else ()):
        if isinstance(name, str):
            yield (*path, name)
        yield from paths(part, (*path, name))


def test_every_key(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(RUN_CONFIG.format(root='data/', model=faster_rcnn_cfg().to_dict()) + EXTRA)
    right = Config.fromfile(str(path)).to_dict()
    check_keys(Config(copy.deepcopy(right)), {})
    check_types(Config(copy.deepcopy(right)))
    silent, refused = [], 0
    for where in paths(right):
        cfg = copy.deepcopy(right)
        part = cfg
        for name in where[:-1]:
            part = part[name]
        items = list(part.items())
        part.clear()
        part.update((misspelt(name) if name == where[-1] else name, value) for name, value in items)
        try:
            check_keys(Config(cfg), {})
            check_types(Config(cfg))
        except ConfigError as error:
            assert misspelt(where[-1]) in str(error) or where[-1] in str(error)
            refused += 1
        else:
            silent.append('.'.join(map(str, where)))
    assert refused > 200
    assert [name for name in silent if not any(re.match(one, name) for one in ELSEWHERE)] == []


@pytest.mark.parametrize('key, words', [
    ('backboen', r"no parameter has 'backboen' in its name; did you mean 'backbone'"),
    ('backbone.layr1', r"'backbone.layr1' .*did you mean 'layer1'"), ('backbone.layer1', None), ('absolute_pos', '')])
def test_custom_keys_of_the_optimizer_reach_a_parameter(key, words):
    model, said = torch.nn.ModuleDict(dict(backbone=torch.nn.ModuleDict(dict(layer1=torch.nn.Linear(2, 2))))), []
    runner = type('R', (), dict(model=model, logger=type('L', (), dict(warning=staticmethod(said.append))),
                                optim_wrapper=dict(paramwise_cfg=dict(custom_keys={key: dict(lr_mult=0.1)}))))
    if words:
        with pytest.raises(ConfigError, match=words):
            check_custom_keys(runner)
    else:
        check_custom_keys(runner)
        assert len(said) == (words == '')


def test_types_of_other_packages_and_classes_pass():
    """A scope of its own, a class in place of its name, and transforms of Albumentations."""
    check_types(Config(dict(
        model=dict(type='mmpretrain.ConvNeXt', arch='tiny'),
        optim_wrapper=dict(optimizer=dict(type=torch.optim.SGD, lr=1)),
        train_dataloader=dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=CLASSES), pipeline=[
            dict(type='Albu', transforms=[dict(type='ShiftScaleRotate', shift_limit=0.1)])])))))
