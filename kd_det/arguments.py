"""Checks of what a user writes into a config, and of what reaches a loss.

Each check returns the value it was given, or raises naming the argument, what was found and what would do.
"""
import math
import re

import torch
from torch import Tensor


def one_of(name: str, value, choices: tuple):
    if value not in choices:
        allowed = ', '.join(repr(choice) for choice in choices)
        raise ValueError(f'{name} must be one of {allowed}, found {value!r}')
    return value


def boolean(name: str, value) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f'{name} must be True or False, found {value!r}')
    return value


def non_negative(name: str, value) -> float:
    _finite_number(name, value)
    if value < 0:
        raise ValueError(f'{name} must be 0 or larger, found {value!r}')
    return float(value)


def positive(name: str, value) -> float:
    _finite_number(name, value)
    if value <= 0:
        raise ValueError(f'{name} must be larger than 0, found {value!r}')
    return float(value)


def fraction(name: str, value) -> float:
    """0 or larger, less than 1."""
    if non_negative(name, value) >= 1:
        raise ValueError(f'{name} must be less than 1, found {value!r}')
    return float(value)


def at_most_one(name: str, value) -> float:
    """0 or larger, 1 or less."""
    if non_negative(name, value) > 1:
        raise ValueError(f'{name} must be 1 or less, found {value!r}')
    return float(value)


def positive_int(name: str, value) -> int:
    return _whole_number(name, value, 1)


def non_negative_int(name: str, value) -> int:
    return _whole_number(name, value, 0)


def byte_size(name: str, value) -> int:
    """A number of bytes: a whole number, or a text such as '500MB', '20GB' (powers of 1024; 'MiB' means the same)."""
    if isinstance(value, str):
        found = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*', value, re.IGNORECASE)
        if found is None:
            raise ValueError(f"{name} must be a size such as '500MB' or '20GB', found {value!r}")
        value = int(float(found[1]) * 1024**' kmgt'.index(found[2].lower() or ' '))
    return _whole_number(name, value, 1)


def _whole_number(name: str, value, smallest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name} must be a whole number, found {value!r}')
    if value < smallest:
        raise ValueError(f'{name} must be {smallest} or larger, found {value!r}')
    return value


def _finite_number(name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{name} must be a number, found {value!r}')
    if not math.isfinite(value):
        raise ValueError(f'{name} must be a finite number, found {value!r}')


def comparable(**tensors: Tensor) -> None:
    """All tensors, given by name, are real numbers of one shape on one device.

    Broadcasting would hide a mix-up of shapes; a device mismatch is otherwise reported from deep inside a formula.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        found = ', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in tensors.items())
        raise ValueError(f'shapes must be equal, found {found}')
    if len({tensor.device for tensor in tensors.values()}) > 1:
        found = ', '.join(f'{name} on {tensor.device}' for name, tensor in tensors.items())
        raise ValueError(f'one device is expected, found {found}')
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f'{name} must be floating point, found {tensor.dtype}')


def on_device_of(device: torch.device, **tensors: Tensor | None) -> None:
    """All tensors that are there, given by name, are on ``device``."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != device:
            raise ValueError(f'{name} is on {tensor.device}, what it is for on {device}; one device is expected')


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision goes up to float32, in which losses are summed; float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
