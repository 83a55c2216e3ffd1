"""The towers of dense heads: where they are, what they give before an activation, and how to begin in their middle."""
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.models.dense_heads import (
    ATSSHead,
    DDODHead,
    FCOSHead,
    GFLHead,
    RetinaHead,
    RetinaSepBNHead,
    TOODHead,
    VFNetHead,
    YOLOXHead,
)
from torch import Tensor, nn

from ..errors import ConfigError
from ..tap import replaced, tap_layer
from .dense_outputs import DenseOutputs, decoder_of, training_format

# the first class that fits counts: subclasses before what they derive from (PAA's and RTMDet's heads are ATSSHeads)
TOWERS: tuple[tuple[type, tuple[str, str] | str], ...] = (
    (TOODHead, 'one tower serves its classes and its boxes'),
    (VFNetHead, 'its boxes come in two steps, the second through deformable convolutions'),
    (YOLOXHead, ('multi_level_cls_convs', 'multi_level_reg_convs')),
    (ATSSHead, ('cls_convs', 'reg_convs')), (GFLHead, ('cls_convs', 'reg_convs')),
    (FCOSHead, ('cls_convs', 'reg_convs')), (RetinaHead, ('cls_convs', 'reg_convs')),
    (RetinaSepBNHead, ('cls_convs', 'reg_convs')), (DDODHead, ('cls_convs', 'reg_convs')))
"""Attributes of a head that hold its class tower and its box tower, or why it has no two. Add a head of your own here:
a list of convolutions that all levels share, or a list of such lists, one for each level.
"""


@dataclass(frozen=True)
class Tower:
    """One branch of a head, between the neck and the predictors.

    Attributes:
        name: of the head's attribute.
        levels: convolutions in order, of each level; of all levels once where they share them.
        shared: whether all levels share them.
    """

    name: str
    levels: tuple[tuple[nn.Module, ...], ...]
    shared: bool

    @property
    def depth(self) -> int:
        """How many convolutions follow each other."""
        return len(self.levels[0])

    def channels(self, k: int) -> int:
        """Of what convolution ``k`` gives; the first is 1."""
        return _last_part(self.levels[0][k - 1])[1].out_channels

    def paths(self, k: int) -> list[str]:
        """Layers, relative to the head, that give what convolution ``k`` hands to its activation: convolution and norm,
        one for each level or one that all levels go through.
        """
        found: dict[nn.Module, str] = {}
        for level, convs in enumerate(self.levels):
            prefix, part = _last_part(convs[k - 1])
            layer = part.norm_name if part.with_norm else 'conv'
            place = f'{self.name}.' + ('' if self.shared else f'{level}.') + f'{k - 1}.{prefix}{layer}'
            found.setdefault(getattr(part, layer), place)
        return list(found.values())

    @contextmanager
    def entered_after(self, k: int, features: Sequence[Tensor]) -> Iterator[None]:
        """In the block the tower begins behind convolution ``k``, whatever is handed to its first one.

        Args:
            k: convolutions that are left out; the first behind them is k + 1. The activation of the last one left out
                still acts.
            features: (N, C, h, w) of each level, in the place of what convolution ``k`` hands to its activation.

        Raises:
            RuntimeError: the head went through the tower more or fewer times than there are features.
        """
        waiting = iter(features)

        def begins(convolution: nn.Module) -> Any:
            part = _last_part(convolution)[1]

            def forward(_before: Tensor) -> Tensor:
                feature = next(waiting, None)
                if feature is None:
                    raise RuntimeError(f'{self.name}: the head goes through it more than {len(features)} times, its '
                                       'number of levels')
                return part.activate(feature) if part.with_activation else feature
            return forward

        with ExitStack() as stack:
            for convs in self.levels:
                for convolution in convs[:k - 1]:
                    stack.enter_context(replaced(convolution, forward=_passed_on))
                stack.enter_context(replaced(convs[k - 1], forward=begins(convs[k - 1])))
            yield
        if next(waiting, None) is not None:
            raise RuntimeError(f'{self.name}: the head did not go through it once for each of {len(features)} levels')


def towers_of(head: nn.Module, key: str) -> dict[str, Tower]:
    """The class tower ``'cls'`` and the box tower ``'bbox'`` of a dense head.

    Raises:
        ConfigError: naming ``key``: a head without two towers, or one whose towers are built otherwise; with the
            reason.
    """
    names = next((names for cls, names in TOWERS if isinstance(head, cls)), None)
    if names is None:
        known = sorted(cls.__name__ for cls, names in TOWERS if not isinstance(names, str))
        raise ConfigError(f'{key}: which layers are the towers of {type(head).__name__} is not known; they are of '
                          f'{", ".join(known)} and their subclasses (others: kd_det.heads.towers.TOWERS)')
    if isinstance(names, str):
        raise ConfigError(f'{key}: {type(head).__name__} cannot be entered between tower and predictors: {names}')
    return {branch: _tower(head, name, key) for branch, name in zip(('cls', 'bbox'), names)}


def _tower(head: nn.Module, name: str, key: str) -> Tower:
    layers = list(getattr(head, name, ()))
    shared = not any(isinstance(layer, (nn.ModuleList, nn.Sequential)) for layer in layers)
    levels = tuple(tuple(level) for level in ([layers] if shared else layers))
    if not levels or not levels[0] or len({len(level) for level in levels}) > 1:
        raise ConfigError(f'{key}: {type(head).__name__}.{name} holds {[len(level) for level in levels]} convolutions; '
                          'at least one is needed (stacked_convs), equally many at every level')
    for convolution in (convolution for level in levels for convolution in level):
        part = _last_part(convolution)[1]
        if part is None or tuple(part.order) != ('conv', 'norm', 'act'):
            raise ConfigError(f'{key}: {type(head).__name__}.{name} holds a {type(convolution).__name__}'
                              + ('' if part is None else f' of order {part.order}') + '; convolution, norm and '
                              'activation in this order are expected (ConvModule, DepthwiseSeparableConvModule)')
    return Tower(name, levels, shared)


def _last_part(convolution: nn.Module) -> tuple[str, ConvModule | None]:
    """The part of a tower's layer that ends in its activation, with its path; None: a layer of another kind."""
    if isinstance(convolution, DepthwiseSeparableConvModule):
        return 'pointwise_conv.', convolution.pointwise_conv
    return '', convolution if isinstance(convolution, ConvModule) else None


def _passed_on(before: Tensor) -> Tensor:
    return before


def check_entry(head: nn.Module, towers: dict[str, Tower], k: int, key: str) -> dict[str, set[str]]:
    """Try out, on noise, that the head depends on nothing but its towers' features where they are entered.

    The head runs twice: on features, and on other features with its towers entered by what they gave the first time.
    Both answers must be equal. A subclass that does something of its own around its towers is found out by it.

    Args:
        head: in eval mode, its parameters frozen.
        towers: of :func:`towers_of`.
        k: convolution after which they are entered.
        key: for messages.

    Returns:
        dict[str, set[str]]: from which towers come ``logits``, ``regression`` and ``factor`` of
        :class:`~kd_det.heads.dense_outputs.DenseOutputs`.

    Raises:
        ConfigError: the answers differ.
    """
    decode, parameter = decoder_of(head, key), next(head.parameters())
    generator = torch.Generator().manual_seed(0)
    sizes = [max(2, 16 >> level) for level in range(len(head.prior_generator.strides))]
    once, again = ([torch.randn(1, head.in_channels, side, side, generator=generator).to(parameter) for side in sizes]
                   for _ in range(2))
    heard: dict[str, list[Tensor]] = {branch: [] for branch in towers}
    with torch.no_grad(), training_format(head), ExitStack() as stack:
        for branch, tower in towers.items():
            for path in tower.paths(k):  # the activation behind may work in place
                stack.enter_context(tap_layer(
                    head.get_submodule(path), lambda output, found=heard[branch]: found.append(output.clone())))
        said = DenseOutputs.of(head, decode, head(tuple(once)))
    with torch.enable_grad(), training_format(head), ExitStack() as stack:
        inputs = {branch: [level.requires_grad_() for level in levels] for branch, levels in heard.items()}
        for branch, tower in towers.items():
            stack.enter_context(tower.entered_after(k, [level * 1 for level in inputs[branch]]))
        says = DenseOutputs.of(head, decode, head(tuple(again)))
    origins: dict[str, set[str]] = {}
    for part in ('logits', 'regression', 'factor'):
        one, other = getattr(said, part), getattr(says, part)
        if one is None:
            continue
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-4):
            names = ' and '.join(tower.name for tower in towers.values())
            raise ConfigError(f'{key}: {type(head).__name__} gives other {part} when {names} are entered behind '
                              f'convolution {k}: its predictors see something else too')
        origins[part] = set()
        for branch, levels in inputs.items():
            reached = torch.autograd.grad(other.sum(), levels, retain_graph=True, allow_unused=True)
            if any(gradient is not None for gradient in reached):
                origins[part].add(branch)
    return origins
