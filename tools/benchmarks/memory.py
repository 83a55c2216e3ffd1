"""The most memory that a function holds at once: on the CPU by counting tensors, on CUDA by the allocator's own record.
"""
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations return while it is active, for as long as they are alive.

    Views share a storage and count once. What an operation needs inside itself is not seen. PyTorch's own tracker
    (``torch.distributed._tools``) refuses networks with frozen layers, which teachers and most backbones have.

    Args:
        held: tensors that exist before and count as well.

    Attributes:
        live, peak (int): bytes now, and at the worst moment so far.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}
        for tensor in held:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return found

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if not size or address in self._known:
            return
        self._known[address] = weakref.finalize(storage, self._gone, address, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _gone(self, address: int, size: int) -> None:
        self._known.pop(address, None)
        self.live -= size


def peak_bytes(run: Callable[[], object], device: str, held: Iterable[Tensor] = ()) -> int:
    """Bytes of tensors alive at the worst moment of ``run()``.

    Args:
        run: one step.
        device (str): where it runs.
        held: what exists before it and counts: weights, gradients, what the optimizer keeps. On CUDA everything that is
            allocated counts.
    """
    if device.startswith('cuda'):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    with LiveBytes(held) as counter:
        run()
    return counter.peak
