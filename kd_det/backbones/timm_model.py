"""timm's models as feature extractors: made, and asked which map depends on which parameter."""
import difflib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError


def the_library() -> ModuleType:
    """timm, which is optional.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ConfigError('TimmBackbone: timm is not installed; pip install timm (or install kd_det with the extra '
                          '[timm])') from error
    return timm


def check_name(model_name: str) -> None:
    """Raises :class:`ConfigError` with the nearest names for a model that timm does not have."""
    timm = the_library()
    if not isinstance(model_name, str) or not timm.is_model(model_name):
        close = difflib.get_close_matches(str(model_name), timm.list_models(), n=3)
        raise ConfigError(f'TimmBackbone.model_name: timm {timm.__version__} has no {model_name!r}'
                          + (f'; did you mean {" or ".join(map(repr, close))}?' if close else '')
                          + ' (timm.list_models() lists them)')


def classifier(model_name: str, **arguments: Any) -> nn.Module:
    """The whole classification network on the meta device: its names and shapes, no memory."""
    with torch.device('meta'):
        return _create(model_name, arguments)


def extractor(model_name: str, out_indices: tuple[int, ...] | None, meta: bool = False, **arguments: Any) -> nn.Module:
    """The network without its classifier; its forward returns a list of maps.

    Args:
        out_indices: which of timm's maps; None: timm's own choice.
        meta (bool): on the meta device, for looking at.

    Raises:
        ConfigError: timm gives no maps of this model, or refuses an argument.
    """
    if out_indices is not None:
        arguments['out_indices'] = out_indices
    arguments['features_only'] = True
    if not meta:
        return _create(model_name, arguments)
    with torch.device('meta'):
        return _create(model_name, arguments)


def _create(model_name: str, arguments: dict) -> nn.Module:
    timm = the_library()
    try:
        return timm.create_model(model_name, **arguments)
    except Exception as error:  # timm raises RuntimeError, AssertionError, TypeError, IndexError ... for bad arguments
        raise ConfigError(f'TimmBackbone: timm cannot make {model_name!r} with {arguments}: {error}') from error


def any_size(model_name: str, arguments: dict) -> dict:
    """What makes a transformer take images of any size, where its constructor knows of it and ``arguments`` do not say:
    timm's default is to refuse all but the size of its pre-training.
    """
    kind = type(classifier(model_name, **arguments))
    takes = inspect.signature(kind.__init__).parameters
    wanted = {'dynamic_img_size': True, 'dynamic_img_pad': True}
    if 'dynamic_img_size' not in takes:  # Swin in timm before it took that name
        wanted = {'strict_img_size': False}
    return {name: value for name, value in wanted.items() if name in takes and name not in arguments}


def feature_indices(reductions: list[int]) -> tuple[int, ...]:
    """The maps that detectors use: the last one of each stride from 4 on.

    >>> feature_indices([2, 4, 8, 16, 32])
    (1, 2, 3, 4)
    >>> feature_indices([16, 16, 16])  # a plain ViT has one stride only
    (2,)
    """
    last = {stride: index for index, stride in enumerate(reductions) if stride >= 4}
    return tuple(sorted(last.values()))


def is_channels_last(net: nn.Module) -> bool:
    """Whether an :func:`extractor` gives maps (N, h, w, C), as that of Swin does."""
    fmt = getattr(net, 'output_fmt', None)
    return getattr(fmt, 'value', fmt) == 'NHWC'


def cut_unused_ends(net: nn.Module, used: frozenset[str]) -> tuple[str, ...]:
    """Delete what no map depends on where it ends a sequence, in place.

    Args:
        used: the parameters that maps depend on.

    Returns:
        tuple[str]: the modules that were deleted, in that order.
    """
    cut = []
    for name, module in list(net.named_modules()):
        while isinstance(module, nn.Sequential) and len(module):
            last = f'{name}.{len(module) - 1}'
            below = [key for key, _ in net.named_parameters() if key.startswith(f'{last}.')]
            if not below or any(key in used for key in below):
                break
            del module[-1]
            cut.append(last)
    return tuple(cut)


def dependencies(net: nn.Module, size: tuple[int, ...]) -> list[frozenset[str]]:
    """For each feature map, the names of the parameters that it depends on: what autograd's graph ends in.

    Args:
        net: an :func:`extractor` on the meta device, so that nothing is computed.
        size: (C, H, W) of an image that it takes.
    """
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    net.train()
    return [frozenset(names[id(leaf)] for leaf in _leaves(one) if id(leaf) in names)
            for one in net(torch.zeros(2, *size, device='meta'))]


def _leaves(result: Tensor) -> Iterator[Tensor]:
    """The tensors that would get a gradient from ``result``, without computing one."""
    waiting, seen = [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, 'variable'):  # AccumulateGrad
            yield node.variable
        waiting.extend(before for before, _ in node.next_functions)
