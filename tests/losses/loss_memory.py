"""How much autograd keeps for the backward pass."""
import torch
from torch import Tensor


def saved_bytes(function, *arguments) -> int:
    """Bytes of the distinct tensors that autograd saves while ``function(*arguments)`` runs.

    A view counts with its own elements; what shares place, shape and strides counts once.
    """
    found: dict[tuple, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        # elements that an expanded dimension repeats are there once
        size = 1
        for length, stride in zip(tensor.shape, tensor.stride()):
            size *= length if stride else 1
        found[tensor.data_ptr(), tuple(tensor.shape), tensor.stride()] = size * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function(*arguments)  # kept alive, or freed memory would be counted as shared
    assert result.requires_grad
    return sum(found.values())
