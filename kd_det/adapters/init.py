"""Initialisation of adapters, which must leave no trace in the random state.

With adapters or without, a student has to draw the same initial weights, batches and samples; otherwise runs with a
term on and off could not be compared. So layers are built in a fork of the CPU generator (torch's own initialisation
draws from it), and the weights that count come from a generator of their own. The global seed is not touched:
``torch.manual_seed`` would also seed every GPU.

The weights of a layer are drawn with variance gain^2 / fan_in (He et al. 2015), gain^2 = 2 before a ReLU and 1
elsewhere, biases are 0. An adapter's output then starts at the scale of the student's feature; torch's default for
convolutions, variance 1 / (3 fan_in), starts it smaller.
"""
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

INITS = ('kaiming', 'identity')


@contextmanager
def undisturbed_random_state() -> Iterator[None]:
    """Whatever is built inside, on the CPU, leaves the global random state as it was."""
    with torch.random.fork_rng(devices=[]), torch.device('cpu'):
        yield


@torch.no_grad()
def kaiming_(layers: list[nn.Conv2d | nn.Linear], seed: int) -> None:
    """Draw the weights of layers that are chained with ReLUs between, and none at the end."""
    generator = torch.Generator('cpu').manual_seed(seed)
    for layer in layers:
        gain = 1.0 if layer is layers[-1] else math.sqrt(2.0)
        fan_in = layer.weight[0].numel()
        layer.weight.normal_(0.0, gain / math.sqrt(fan_in), generator=generator)
        if layer.bias is not None:
            layer.bias.zero_()


@torch.no_grad()
def identity_(layer: nn.Conv2d | nn.Linear) -> None:
    """Make the layer pass its input on: ones on the diagonal, at the kernel's centre."""
    layer.weight.zero_()
    centre = tuple(side // 2 for side in layer.weight.shape[2:])
    for channel in range(layer.weight.shape[0]):
        layer.weight[(channel, channel, *centre)] = 1.0
    if layer.bias is not None:
        layer.bias.zero_()


def initialise_(layers: list[nn.Conv2d | nn.Linear], init: str, seed: int) -> None:
    if init == 'identity':
        identity_(layers[0])
    else:
        kaiming_(layers, seed)


def chain(layers: list[nn.Module], between: Callable[[], list[nn.Module]]) -> nn.Sequential:
    """The layers in a row, what ``between`` makes after each but the last."""
    modules = [layers[0]]
    for layer in layers[1:]:
        modules += [*between(), layer]
    return nn.Sequential(*modules)


def check_identity_init(init: str, num_layers: int, in_channels: int, out_channels: int) -> None:
    if init == 'identity' and (num_layers != 1 or in_channels != out_channels):
        raise ValueError(
            "init='identity' needs one layer and as many channels out as in, found "
            f"num_layers={num_layers}, {in_channels} channels in, {out_channels} out; "
            "use init='kaiming'"
        )
