"""Any timm model with feature maps as an MMDetection backbone."""
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from ..errors import ConfigError
from .timm_maps import TimmMaps
from .timm_model import (
    any_size,
    check_name,
    cut_unused_ends,
    dependencies,
    extractor,
    feature_indices,
    is_channels_last,
    the_library,
)
from .timm_stages import covering, frozen_parameters
from .timm_weights import download_weights, load_weights, read_weights


class TimmBackbone(TimmMaps):
    """A model of timm (``pip install timm``) with ``features_only``; channels and strides are found by themselves.

    A neck takes its numbers from it with ``neck.in_channels='auto'`` (:mod:`kd_det.channels`). Transformers that timm
    gives maps of work too, and take images of any size where timm has a way to (``dynamic_img_size``).

    Args:
        model_name (str): timm's name, with or without the tag of its weights (``resnet50.a1_in1k``).
        pretrained (bool): timm's own weights of that tag, downloaded when training begins.
        checkpoint (str | None): weights from a file instead (``.safetensors`` or ``.pth``): a classification network's
            or an extractor's. They are read when training begins and must fit whole; only the classifier and stages
            behind the last map are left out.
        out_indices (tuple[int] | None): which of timm's maps, counted as timm counts (most CNNs have strides
            2, 4, 8, 16, 32; Swin, ConvNeXt 4, 8, 16, 32). None: the last one of each stride from 4 on.
        frozen_stages (int): as MMDetection's backbones: -1 none, 0 the stem, n the stem and the first n stages, where
            stage 1 ends in stride 4, stage 2 in stride 8 ... Frozen parameters get no gradient, and modules all of
            whose parameters are frozen stay in eval mode.
        norm_eval (bool): keep batch norms in eval mode while training, as MMDetection's ResNet does.
        in_channels (int): channels of the images.
        model_args (dict | None): further arguments of timm's constructor, such as ``drop_path_rate``.
        init_cfg (dict | None): of MMEngine, for other initial values than timm's; no ``Pretrained``.

    Attributes:
        out_indices, out_channels, strides: of the maps that ``forward`` returns.
        resolved (dict): arguments of a :class:`TimmMaps` that is the same network: what was found out here.

    Raises:
        ConfigError: timm is missing or does not know the model or an argument; contradicting arguments.
        CheckpointMismatch: from ``init_weights``: the file does not fit.
    """

    def __init__(self, model_name: str, pretrained: bool = False, checkpoint: str | None = None,
                 out_indices: tuple[int, ...] | None = None, frozen_stages: int = -1, norm_eval: bool = True,
                 in_channels: int = 3, model_args: dict | None = None, init_cfg: dict | None = None) -> None:
        check_name(model_name)
        if pretrained and checkpoint is not None:
            raise ConfigError('TimmBackbone: pretrained=True and checkpoint contradict each other; give one of them')
        if any('Pretrained' in str(one.get('type')) for one in _as_list(init_cfg)):
            raise ConfigError('TimmBackbone.init_cfg: MMEngine\'s Pretrained loads what fits and leaves the rest '
                              'random; use checkpoint=FILE or pretrained=True, and init_cfg=None')
        given = {'in_chans': in_channels, **(model_args or {})}
        arguments = {**given, **any_size(model_name, given)}
        out_indices = _checked_indices(model_name, out_indices, arguments)
        net = extractor(model_name, out_indices, meta=True, **arguments)
        size = _image_size(net, in_channels, arguments)
        used = frozenset().union(*dependencies(net, size))
        _warn_of_fixed_size(net, model_name, size)
        # parameters that no map depends on would fail the check for untrained ones, and hang a run on several GPUs
        left_out = cut_unused_ends(net, used)
        frozen = frozen_parameters(model_name, frozen_stages, size, arguments)
        untrained = {name for name, _ in net.named_parameters() if name in frozen or name not in used}
        resolved = dict(model_name=model_name, arguments=arguments, out_indices=out_indices, left_out=left_out,
                        channels_last=is_channels_last(net), frozen=covering(net, untrained), norm_eval=norm_eval)
        super().__init__(**resolved, init_cfg=init_cfg)
        self.resolved, self.out_indices, self.frozen_stages = resolved, out_indices, frozen_stages
        self.pretrained, self.checkpoint = pretrained, checkpoint

    def init_weights(self) -> None:
        """Read the weights; called by the runner before training, never for inference."""
        super().init_weights()
        arguments = self.resolved['arguments']
        if self.pretrained:
            state, source = download_weights(self.model_name, self.out_indices, arguments), 'timm\'s own weights'
        elif self.checkpoint is not None:
            state, source = read_weights(self.checkpoint), f'checkpoint {self.checkpoint}'
        else:
            if self.norm_eval or self.frozen_stages >= 0:
                print_log(f'TimmBackbone {self.model_name} starts from random weights with norm_eval={self.norm_eval}, '
                          f'frozen_stages={self.frozen_stages}: what is frozen stays random unless load_from or resume '
                          'brings weights. From scratch: norm_eval=False, frozen_stages=-1', 'current', level=30)
            return
        load_weights(self.timm_model, state, self.model_name, f'TimmBackbone {self.model_name}: {source}', arguments)
        print_log(f'TimmBackbone {self.model_name}: {source} loaded whole', 'current')

    @classmethod
    def input_statistics(cls, model_name: str, **other: Any) -> dict[str, list[float]]:
        """What timm normalises this model's images by: ``mean`` and ``std`` of RGB from 0 to 255."""
        check_name(model_name)
        found = the_library().get_pretrained_cfg(model_name)
        return {name: [round(255 * value, 3) for value in getattr(found, name)] for name in ('mean', 'std')}


def _as_list(init_cfg: dict | list | None) -> list[dict]:
    return [] if init_cfg is None else [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg)


def _checked_indices(model_name: str, asked: tuple[int, ...] | None, arguments: dict) -> tuple[int, ...]:
    info = extractor(model_name, None, meta=True, **arguments).feature_info.info
    reductions = [entry['reduction'] for entry in info]
    if asked is None:
        return feature_indices(reductions)
    indices = tuple(asked) if isinstance(asked, (tuple, list)) else (asked,)
    wrong = [i for i in indices if not isinstance(i, int) or not -len(info) <= i < len(info)]
    if wrong or not indices:
        raise ConfigError(f'TimmBackbone.out_indices={asked}: {model_name} has maps 0 to {len(info) - 1}, of strides '
                          f'{reductions}')
    return tuple(i % len(info) for i in indices)


def _image_size(net: nn.Module, in_channels: int, arguments: dict) -> tuple[int, int, int]:
    size = net.default_cfg.get('input_size') or (3, 224, 224)
    given = arguments.get('img_size')
    height, width = size[-2:] if given is None else (given, given) if isinstance(given, int) else given
    return in_channels, height, width


def _warn_of_fixed_size(net: nn.Module, model_name: str, size: tuple[int, int, int]) -> None:
    other = (size[0], 2 * size[1] // 32 * 32 + 64, size[2] // 32 * 32 + 96)
    try:
        with torch.no_grad():
            net(torch.zeros(2, *other, device='meta'))
    except (RuntimeError, AssertionError, ValueError) as error:
        print_log(f'TimmBackbone {model_name} takes images of {size[2]}x{size[1]} pixels, not of {other[2]}x{other[1]} '
                  f'({error}). Resize all images to a size that it takes (keep_ratio=False), say that size in '
                  'model_args=dict(img_size=(height, width)) where it has such an argument, or take another model',
                  'current', level=30)
