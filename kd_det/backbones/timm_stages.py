"""Which parameters of a timm model belong to which stage, counted as MMDetection's backbones count theirs."""
from collections.abc import Collection

from torch import nn

from ..errors import ConfigError
from .timm_model import dependencies, extractor, feature_indices


def frozen_parameters(model_name: str, frozen_stages: int, size: tuple[int, int, int],
                      arguments: dict) -> frozenset[str]:
    """The parameters that ``frozen_stages`` means, by their names in an extractor of all maps.

    MMDetection's count: -1 none, 0 the stem, n the stem and the first n stages. Stage n ends in the n-th map that a
    detector uses, stage 1 in stride 4, stage 2 in stride 8 ...; of a network with one stride (a plain ViT) each block
    is a stage. A stage's parameters are those that its map depends on, so nothing has to be known of the architecture.

    Args:
        size: (C, H, W) of an image that the model takes.

    Raises:
        ConfigError: there are fewer stages, or no stem that can be told from the first stage.
    """
    if frozen_stages < 0:
        return frozenset()
    info = extractor(model_name, None, meta=True, **arguments).feature_info.info
    net = extractor(model_name, tuple(range(len(info))), meta=True, **arguments)
    reductions = [entry['reduction'] for entry in info]
    stages = feature_indices(reductions) if len(set(reductions)) > 1 else tuple(range(len(info)))
    if frozen_stages > len(stages):
        raise ConfigError(f'TimmBackbone.frozen_stages={frozen_stages}: {model_name} has {len(stages)} stages, of '
                          f'strides {[reductions[i] for i in stages]}; -1 freezes none, 0 the stem')
    reached = dependencies(net, size)
    if frozen_stages:
        return reached[stages[frozen_stages - 1]]
    before = [i for i in range(stages[0]) if reductions[i] < reductions[stages[0]]]
    if before:  # a map of stride 2 ends the stem
        return reached[before[-1]]
    return _stem(net, model_name, str(info[stages[0]]['module']), reached[stages[0]])


def covering(net: nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """The shortest list of modules and parameters that hold the parameters ``names`` and no other.

    Where that is all of them, modules without parameters, such as dropout, are in it too.
    """
    below: dict[str, set[str]] = {}
    for parameter, _ in net.named_parameters():
        parts = parameter.split('.')
        for depth in range(len(parts) + 1):
            below.setdefault('.'.join(parts[:depth]), set()).add(parameter)
    whole = {name for name, parameters in below.items() if parameters <= set(names)}
    if '' in whole:
        return (*(name for name, _ in net.named_children()), *(name for name, _ in net.named_parameters(recurse=False)))
    return tuple(name for name in below if name in whole and name.rpartition('.')[0] not in whole)


def _stem(net: nn.Module, model_name: str, module: str, first: frozenset[str]) -> frozenset[str]:
    """What the first stage's map depends on outside the first stage's own module."""
    own = tuple(f'{prefix}{name}.' for name in (module, module.replace('.', '_', 1)) for prefix in ('', 'model.'))
    stem = frozenset(name for name in first if not name.startswith(own))
    if not stem or stem == first:
        raise ConfigError(f'TimmBackbone.frozen_stages=0: the stem of {model_name} cannot be told from its first stage '
                          f'({module}); -1 freezes nothing, 1 both')
    return stem
