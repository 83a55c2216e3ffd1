"""What a config leaves to the backbone: the neck's ``in_channels='auto'``, and the images' ``mean`` and ``std``.

Swapping a backbone is then one line: the numbers that hang on it are found by building it and asking it.
"""
import warnings
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import nn

from .backbones import TimmBackbone
from .build import build
from .errors import ConfigError

AUTO = 'auto'
SIDE = 128  # pixels of the test image: every map of a stride up to 64 has at least two places a side
PYRAMIDS = frozenset({'FPN', 'PAFPN', 'CSPNeXtPAFPN', 'YOLOXPAFPN', 'ChannelMapper'})
"""Necks that take one map of the backbone for each of their ``in_channels``, in its order."""
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])  # RGB, torchvision's


class NoMaps(ConfigError):
    """A backbone that returns no feature maps, so that their channels cannot be asked for."""


def fill_model(model: dict) -> None:
    """Replace every ``'auto'`` of a detector's config by what its backbone says, in place.

    ``neck.in_channels='auto'`` becomes the channels of the backbone's maps, in order (of the first neck, where ``neck``
    is a list). ``data_preprocessor.mean='auto'`` and ``std='auto'`` become timm's own statistics of the model for a
    :class:`~kd_det.backbones.TimmBackbone`, in the channel order of ``bgr_to_rgb``, and ImageNet's for MMDetection's
    backbones in PyTorch style. Nested detectors (a wrapper's ``detector``) are filled too.

    Args:
        model: the ``model`` of a config; one without a backbone is left alone.

    Raises:
        ConfigError: ``'auto'`` without a backbone to ask, or a backbone that cannot be built or run.
    """
    if isinstance(model.get('detector'), dict):
        fill_model(model['detector'])
    backbone = model.get('backbone')
    necks = model.get('neck')
    first = necks[0] if isinstance(necks, (list, tuple)) and necks else necks
    if isinstance(first, dict) and first.get('in_channels') == AUTO:
        if not isinstance(backbone, dict):
            raise ConfigError('model.neck.in_channels=\'auto\': the model has no backbone to ask; give the numbers')
        first['in_channels'] = feature_channels(backbone)
    preprocessor = model.get('data_preprocessor')
    if isinstance(preprocessor, dict) and isinstance(backbone, dict):
        _fill_statistics(preprocessor, backbone)


def check_levels(model: dict) -> None:
    """Hold the numbers that hang on the backbone and on the neck against them; MMDetection fails in the first step.

    Args:
        model: the ``model`` of a config whose ``'auto'`` is filled in.

    Raises:
        ConfigError: a backbone that cannot be built; a neck for other maps than it returns; anchors for other levels
            than the neck returns.
    """
    if isinstance(model.get('detector'), dict):
        check_levels(model['detector'])
    backbone, necks = model.get('backbone'), model.get('neck')
    necks = list(necks) if isinstance(necks, (list, tuple)) else [necks]
    first = necks[0] if necks else None
    if not isinstance(first, dict) or first.get('type') not in PYRAMIDS:
        return
    given = first.get('in_channels')
    if isinstance(backbone, dict) and isinstance(given, (list, tuple)):
        found = _channels_if_it_runs(backbone)
        if found is not None and list(given) != found:
            raise ConfigError(f'model.neck.in_channels: found {list(given)}, but the maps of model.backbone '
                              f'({backbone.get("type")}) have {found} channels; in_channels=\'auto\' takes these')
    levels = first.get('num_outs')
    for name in ('rpn_head', 'bbox_head'):
        head = model.get(name)
        generator = head.get('anchor_generator') if isinstance(head, dict) else None
        strides = generator.get('strides') if isinstance(generator, dict) else None
        if isinstance(levels, int) and isinstance(strides, (list, tuple)) and len(strides) != levels:
            raise ConfigError(f'model.{name}.anchor_generator.strides: found {list(strides)}, {len(strides)} levels, '
                              f'but model.neck.num_outs={levels}; give a stride for each level')


def _channels_if_it_runs(backbone: dict) -> list[int] | None:
    """As :func:`feature_channels`; None where this cannot say: another package's backbone, other images or no maps."""
    if MODELS.get(str(backbone.get('type'))) is None:
        return None
    try:
        return feature_channels(backbone)
    except (NoMaps, RuntimeError, TypeError, AttributeError, AssertionError):
        return None


def feature_channels(backbone: dict) -> list[int]:
    """Channels of each map that a backbone returns; it is built and run without memory where it can be.

    Args:
        backbone: its config; weights that it names are not read.

    Raises:
        ConfigError: it cannot be built, or returns no maps (N, C, H, W).
    """
    cfg = {key: value for key, value in backbone.items() if key != 'init_cfg'}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), DefaultScope.overwrite_default_scope('mmdet'):
        warnings.simplefilter('ignore')
        try:
            with torch.device('meta'):
                net = build('model.backbone', cfg, MODELS)
                return _channels(net, 'meta')
        except (RuntimeError, NotImplementedError):  # a layer that knows no meta device, such as a compiled op
            return _channels(build('model.backbone', cfg, MODELS), 'cpu')


def _channels(net: nn.Module, device: str) -> list[int]:
    if isinstance(net, TimmBackbone):
        return list(net.out_channels)
    net.eval()  # not chained: MMDetection's backbones return nothing here
    with torch.no_grad():
        maps = net(torch.zeros(1, 3, SIDE, SIDE, device=device))
    maps = list(maps) if isinstance(maps, (list, tuple)) else [maps]
    if not maps or not all(isinstance(one, torch.Tensor) and one.dim() == 4 for one in maps):
        raise NoMaps(f'model.neck.in_channels=\'auto\': {type(net).__name__} returns no feature maps (N, C, H, '
                          'W); give the numbers')
    return [one.shape[1] for one in maps]


def _fill_statistics(preprocessor: dict, backbone: dict) -> None:
    asked = [name for name in ('mean', 'std') if preprocessor.get(name) == AUTO]
    timm = str(backbone.get('type')).rsplit('.', 1)[-1] == 'TimmBackbone' and 'model_name' in backbone
    if not asked and not timm:
        return
    if asked and not timm and backbone.get('style') == 'caffe':
        raise ConfigError(f'model.data_preprocessor.{asked[0]}=\'auto\': backbones of style \'caffe\' were trained '
                          'with several statistics; give the numbers of the weights that are used')
    own: dict[str, Any] = TimmBackbone.input_statistics(backbone['model_name']) if timm else IMAGENET
    if not preprocessor.get('bgr_to_rgb', False):
        own = {name: list(reversed(values)) for name, values in own.items()}
    for name in asked:
        preprocessor[name] = list(own[name])
    wrong = [name for name in ('mean', 'std') if name in preprocessor and not _close(preprocessor[name], own[name])]
    if wrong and (backbone.get('pretrained') or backbone.get('checkpoint')):
        print_log(f'model.data_preprocessor.{wrong[0]}: {list(preprocessor[wrong[0]])}, but timm\'s '
                  f'{backbone["model_name"]} was trained with {own[wrong[0]]}; mean=\'auto\', std=\'auto\' take '
                  'its own',
                  'current', level=30)


def _close(one: Any, other: list[float]) -> bool:
    return (isinstance(one, (list, tuple)) and len(one) == len(other)
            and all(abs(a - b) < 0.5 for a, b in zip(one, other)))
