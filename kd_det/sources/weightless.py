"""Networks without weights: what a network is, as far as that can be known without its parameters."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def without_weights() -> Iterator[None]:
    """Networks that are built in the block have parameters on PyTorch's ``meta`` device: shapes without memory.

    Initialising them costs nothing either. Buffers and other tensors are real, so that anchors, coders and box
    distributions work.
    """
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.detach().to('meta'), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def give_memory(model: nn.Module) -> None:
    """Parameters that are on ``meta`` get memory on the CPU; what is in it is undefined until weights are loaded."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                module._parameters[name] = nn.Parameter(torch.empty_like(parameter, device='cpu'),
                                                        requires_grad=parameter.requires_grad)


def apply_to_real(model: nn.Module, fn: Callable[[Any], Any]) -> None:
    """Move what is real in a network that is partly without weights."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or tensor.is_meta:
                    continue
                if isinstance(tensor, nn.Parameter):
                    tensor.data = fn(tensor.data)
                else:
                    tensors[name] = fn(tensor)
