"""Weights of a network that does not train, in the precision of autocast."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class CastOnce:
    """Under autocast, casts weights once, not at each call: PyTorch caches only casts of what trains."""

    def __init__(self) -> None:
        self._whole: list[tuple[nn.Parameter, Tensor]] = []

    @contextmanager
    def around(self, network: nn.Module, device: str) -> Iterator[None]:
        """While ``network`` runs on ``device``, 'cpu' or 'cuda': where autocast is on, convolutions and linear layers
        are cast, and stay so.
        """
        if not torch.is_autocast_enabled(device):
            self.undo()
        elif not self._whole:
            dtype = torch.get_autocast_dtype(device)
            for module in network.modules():
                if type(module) in (nn.Conv2d, nn.Linear):
                    for parameter in module.parameters(recurse=False):
                        if parameter.dtype == torch.float32:
                            self._whole.append((parameter, parameter.data))
                            parameter.data = parameter.data.to(dtype)
        yield

    def undo(self) -> None:
        """The weights as they were, before a move to another device or precision."""
        for parameter, weight in self._whole:
            parameter.data = weight
        self._whole = []
