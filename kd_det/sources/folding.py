"""Fold the batch norms of a network that will never train into the convolutions before them."""
import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from mmcv.cnn.bricks.wrappers import Conv2d as WrappedConv2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..errors import ConfigError

# exactly these: a subclass may change its weights on the way (ConvAWS), or apply something behind the norm (timm)
CONVOLUTIONS = (nn.Conv2d, WrappedConv2d)
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
TOLERANCE = 1e-3  # of a norm's largest output; folding in float32 leaves about 1e-6


@dataclass(frozen=True)
class Fold:
    """A convolution and its batch norm, children of one module."""

    parent: str
    convolution: str
    norm: str

    def path(self, name: str) -> str:
        """Of a child of the parent."""
        return f'{self.parent}.{name}' if self.parent else name


def fold_batch_norms(model: nn.Module, probe: Callable[[], list[Tensor]], keep: Collection[str] = (),
                     key: str = 'teacher') -> list[Fold]:
    """Fold, in place, each batch norm whose input is what the ``nn.Conv2d`` beside it has just returned::

        w' = w g / sqrt(v + eps),   b' = (b - m) g / sqrt(v + eps) + beta

    Which norm follows which convolution is watched on a probe, not guessed from the order of children. A convolution
    that several batch norms follow (RTMDet shares one over its levels) becomes one for each of them. After folding the
    probe runs again, and every folded norm and the network itself must give what they gave before.

    Args:
        model: in eval mode.
        probe: runs the model on some images as far as it is used, and returns what it says.
        keep: paths of layers that stay as they are, because somebody compares what they return.
        key: of the network in the config, for messages.

    Returns:
        list[Fold]: what was folded.

    Raises:
        ConfigError: a layer or the network gives other values after folding; the layer is named. The model is as it was
            then.
    """
    folds, before, said = _watched(model, probe, set(keep))
    originals = {fold: (_child(model, fold.parent, fold.convolution), _child(model, fold.parent, fold.norm))
                 for fold in folds}
    for fold, pair in originals.items():
        _put(model, fold, _folded(*pair), nn.Identity())
    changed, says = _changed_norm(model, probe, folds, before)
    if changed is not None or _largest(said, says) > TOLERANCE:
        for fold, pair in originals.items():
            _put(model, fold, *pair)
        if changed is None:
            changed = max(folds, key=lambda fold: _change_by(model, fold, originals[fold], probe, said))
        raise ConfigError(f'{key}.fuse_conv_bn: the network says other things when the batch norm '
                          f'{changed.path(changed.norm)} is folded into its convolution: something else uses or '
                          f'changes what lies between it and {changed.path(changed.convolution)}. Set '
                          f'{key}.fuse_conv_bn=False')
    return folds


def _put(model: nn.Module, fold: Fold, convolution: nn.Module, norm: nn.Module) -> None:
    parent = model.get_submodule(fold.parent)
    setattr(parent, fold.convolution, convolution)
    setattr(parent, fold.norm, norm)


def _change_by(model: nn.Module, fold: Fold, pair: tuple[nn.Module, nn.Module], probe: Callable[[], list[Tensor]],
               said: list[Tensor]) -> float:
    """How much one fold alone changes what the network says; the network is as it was afterwards."""
    _put(model, fold, _folded(*pair), nn.Identity())
    change = _largest(said, probe())
    _put(model, fold, *pair)
    return change


def _child(model: nn.Module, parent: str, name: str) -> nn.Module:
    return getattr(model.get_submodule(parent), name)


def _folded(convolution: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    convolution = copy.deepcopy(convolution)  # others may use the same one with another norm
    weight = norm.weight if norm.weight is not None else torch.ones_like(norm.running_mean)
    bias = norm.bias if norm.bias is not None else torch.zeros_like(norm.running_mean)
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, weight, bias)
    return convolution.eval().requires_grad_(False)


def _watched(model: nn.Module, probe: Callable[[], list[Tensor]],
             keep: set[str]) -> tuple[list[Fold], dict[Fold, list[Tensor]], list[Tensor]]:
    """What can be folded, what each of its norms returned, and what the probe did."""
    made_by: dict[int, tuple[nn.Module, Tensor]] = {}  # id of an output, which is kept alive, -> its convolution
    calls: dict[nn.Module, list[tuple[nn.Module | None, Tensor]]] = {}  # norm -> (convolution before it, output) a call
    uses: dict[nn.Module, int] = {}

    def after_convolution(module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        made_by[id(output)] = module, output
        uses[module] = uses.get(module, 0) + 1

    def after_norm(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        source = made_by.get(id(inputs[0]), (None, None))[0]
        calls.setdefault(module, []).append((source, output.clone()))  # an activation may work in place

    handles = []
    for module in model.modules():
        if type(module) in CONVOLUTIONS:
            handles.append(module.register_forward_hook(after_convolution))
        elif type(module) in NORMS and module.track_running_stats and not module.training:
            handles.append(module.register_forward_hook(after_norm))
    try:
        said = probe()
    finally:
        for handle in handles:
            handle.remove()
    folds, outputs, folded_uses = [], {}, {}
    for parent_name, parent in model.named_modules():
        children = dict(parent.named_children())
        by_identity = {module: name for name, module in children.items()}
        for name, norm in children.items():
            sources = {source for source, _ in calls.get(norm, [])}
            source = sources.pop() if len(sources) == 1 else None
            if source is None or source not in by_identity:
                continue
            fold = Fold(parent_name, by_identity[source], name)
            if fold.path(fold.convolution) in keep or fold.path(fold.norm) in keep:
                continue
            folds.append(fold)
            outputs[fold] = [output for _, output in calls[norm]]
            folded_uses[source] = folded_uses.get(source, 0) + len(calls[norm])
    # a convolution whose output also goes elsewhere stays with all its norms
    kept = [fold for fold in folds
            if folded_uses[(conv := _child(model, fold.parent, fold.convolution))] == uses[conv]]
    return kept, {fold: outputs[fold] for fold in kept}, said


def _changed_norm(model: nn.Module, probe: Callable[[], list[Tensor]], folds: list[Fold],
                  before: dict[Fold, list[Tensor]]) -> tuple[Fold | None, list[Tensor]]:
    """The first folded norm that gives other values than before, and what the probe did."""
    now: dict[Fold, list[Tensor]] = {fold: [] for fold in folds}
    handles = [_child(model, fold.parent, fold.norm).register_forward_hook(
        lambda _module, _inputs, output, fold=fold: now[fold].append(output.clone())) for fold in folds]
    try:
        says = probe()
    finally:
        for handle in handles:
            handle.remove()
    return next((fold for fold in folds if _largest(before[fold], now[fold]) > TOLERANCE), None), says


def _largest(before: list[Tensor], now: list[Tensor]) -> float:
    """The largest relative difference of any pair."""
    return max((_relative(one, other) for one, other in zip(before, now, strict=True)), default=0.0)


def _relative(one: Tensor, other: Tensor) -> float:
    if not one.numel():
        return 0.0
    error = float((one - other).abs().max() / one.abs().max().clamp(min=1e-6))
    return error if error == error else float('inf')
