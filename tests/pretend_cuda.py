"""Tensors that say they are on a GPU, computed on the CPU: code that mixes devices fails, also where it reads values.

PyTorch's FakeTensorMode knows no values, so that it ends where code asks for one; here all values are there. Forward
passes only. Like PyTorch, an operation takes tensors of one device, and beside them numbers (tensors without
dimensions) and indices of the CPU.
"""
import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device('cuda', 0)
INDICES = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default,
           torch.ops.aten._index_put_impl_.default}
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}

NO_DRIVER = getattr(torch, 'AcceleratorError', RuntimeError)


class OnGPU(torch.Tensor):
    """A CPU tensor that says it is on :data:`DEVICE`."""

    @staticmethod
    def __new__(cls, value):
        return torch.Tensor._make_wrapper_subclass(
            cls, value.size(), strides=value.stride(), storage_offset=value.storage_offset(), dtype=value.dtype,
            layout=value.layout, device=DEVICE, requires_grad=False)

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return f'OnGPU({self.value})'

    # what PyTorch would ask a driver for
    def new_tensor(self, data, dtype=None):
        return OnGPU(self.value.new_tensor(plain(data), dtype=dtype))

    def new(self, *sizes):
        return OnGPU(self.value.new(*sizes))

    def item(self):
        return self.value.item()

    def tolist(self):
        return self.value.tolist()

    def __bool__(self):
        return bool(self.value)

    def __int__(self):
        return int(self.value)

    def __float__(self):
        return float(self.value)

    def __index__(self):
        return self.value.__index__()

    def __getitem__(self, index):
        return OnGPU(self.value[plain(index)])

    def __setitem__(self, index, value):
        if isinstance(value, torch.Tensor) and not isinstance(value, OnGPU) and value.dim():
            raise RuntimeError(f'a tensor of the CPU, {tuple(value.shape)}, is put into one of {DEVICE}')
        self.value[plain(index)] = plain(value)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        try:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        except NO_DRIVER as error:
            if 'CUDA' not in str(error):
                raise
        # a few functions ask for the driver on the Python side, before anything is computed
        check_devices(function, args, kwargs)
        return moved(function(*plain(args), **plain(kwargs)))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


def plain(value):
    """Nested tensors as those of the CPU that they are."""
    return tree_map(lambda one: one.value if isinstance(one, OnGPU) else one, value)


def check_devices(function, args, kwargs):
    """Whether the result of an operation is on the GPU; raises where it is given tensors of both devices."""
    found = []
    tree_map(lambda one: found.append(one) if isinstance(one, torch.Tensor) else None, (args, kwargs))
    wanted = kwargs.get('device')
    if function in MOVES:
        return torch.device(wanted).type == 'cuda' if wanted is not None else isinstance(found[0], OnGPU)
    there = any(isinstance(one, OnGPU) for one in found) or (wanted is not None and torch.device(wanted).type == 'cuda')
    here = [one for one in (found[:1] if function in INDICES else found) if not isinstance(one, OnGPU) and one.dim()]
    if there and here:
        raise RuntimeError(f'{function}: a tensor of the CPU, {tuple(here[0].shape)}, among tensors of {DEVICE}')
    return there


def run(function, args, kwargs):
    wanted, there = kwargs.get('device'), check_devices(function, args, kwargs)
    args, kwargs = plain((args, dict(kwargs)))
    if wanted is not None:
        kwargs['device'] = torch.device('cpu')
    if 'pin_memory' in kwargs:
        kwargs['pin_memory'] = None
    result = function(*args, **kwargs)
    return tree_map(lambda one: OnGPU(one) if isinstance(one, torch.Tensor) and not isinstance(one, OnGPU) else one,
                    result) if there else result


class PretendGPU(TorchDispatchMode):
    """Meanwhile ``device='cuda'`` makes an :class:`OnGPU`."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


@contextlib.contextmanager
def pretended():
    """No gradients, and a GPU that can be named."""
    # what asks for a driver, when a device is named
    def made(make):
        def on_any_device(data, *args, device=None, **kwargs):
            if device is None or torch.device(device).type != 'cuda':
                return make(data, *args, device=device, **kwargs)
            found = data if isinstance(data, OnGPU) and not kwargs else make(plain(data), *args, **kwargs)
            return found if isinstance(found, OnGPU) else OnGPU(found)
        return mock.patch.object(torch, make.__name__, on_any_device)

    with made(torch.tensor), made(torch.as_tensor), mock.patch.object(torch.cuda, '_lazy_init', lambda: None), \
            torch.backends.cudnn.flags(enabled=False), torch.no_grad(), PretendGPU():
        yield


def moved(value):
    """A tensor, or nested tensors, on the GPU."""
    return tree_map(lambda one: OnGPU(one) if isinstance(one, torch.Tensor) and not isinstance(one, OnGPU) else one,
                    value)


def move_module(module):
    """Parameters and buffers of a module on the GPU, in place."""
    for one in module.modules():
        for name, parameter in list(one._parameters.items()):
            if parameter is not None:
                one._parameters[name] = torch.nn.Parameter(OnGPU(parameter.detach()), requires_grad=False)
        for name, buffer in list(one._buffers.items()):
            if buffer is not None:
                one._buffers[name] = OnGPU(buffer)
    return module
