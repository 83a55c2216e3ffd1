"""Dense losses that keep their inputs for the backward pass, and nothing else."""
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd import Function

# Elements of the student's tensor that are worked on at a time. What a formula makes on its way exists for so many
# only: small enough not to count beside the tensors of a batch, large enough that the calls cost nothing. On a
# processor it also stays in the cache from one operation to the next.
CHUNK = 2**21
CHUNK_CPU = 2**18


def recomputed(function: Callable[..., Tensor], student: Tensor, *constants: Tensor) -> Tensor:
    """``function(student, *constants)`` row by row, of which autograd keeps the arguments alone.

    What a formula makes on its way (probabilities, logarithms, differences) would otherwise wait for the backward pass:
    11 bytes for every byte of logits in the focal KL. Here it is made again in the backward pass, for some rows at a
    time, in the forward pass too. Half precision is kept as it came.

    Args:
        function: from (n, ...) tensors to (n, ...), every row of the result made of the same row of the arguments.
        student: (N, ...), which gets a gradient.
        constants: (N, ...), on the same rows; they get none.

    Returns:
        (N, ...), what ``function`` returns for all rows.

    Raises:
        RuntimeError: in a backward pass with ``create_graph=True``; there is no second derivative.
    """
    return _Recomputed.apply(function, student, *constants)


class _Recomputed(Function):

    @staticmethod
    def forward(ctx, function: Callable[..., Tensor], student: Tensor, *constants: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(student, *constants)
        parts = [function(*rows) for rows in rows_at_a_time(student, *constants)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError('this loss keeps its inputs alone and has no second derivative; create_graph=True is '
                               'not supported')
        result = torch.empty_like(ctx.saved_tensors[0])                          # (N, ...)
        for out, outer, student, *constants in rows_at_a_time(result, gradient, *ctx.saved_tensors):
            with torch.enable_grad():
                student = student.detach().requires_grad_()
                value = ctx.function(student, *constants)
            out.copy_(torch.autograd.grad(value, student, outer)[0])
        return None, result, *[None] * (len(ctx.saved_tensors) - 1)


def rows_at_a_time(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of all tensors, as views, so many that the widest of them holds about ``CHUNK`` elements, on a
    processor ``CHUNK_CPU``.
    """
    if tensors[0].dim() == 0:
        return iter([tensors])
    rows = len(tensors[0])
    chunk = CHUNK_CPU if tensors[0].device.type == 'cpu' else CHUNK
    width = max(tensor.numel() for tensor in tensors) // max(rows, 1)
    return zip(*(tensor.split(max(chunk // max(width, 1), 1)) for tensor in tensors))
