"""Listen in on a method or a layer while something else calls it."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def tap_method(owner: Any, name: str, on_return: Callable[..., None]) -> Iterator[None]:
    """For the duration of the block, call ``on_return(result, *args, **kwargs)`` after each ``owner.name(...)``.

    The wrapper lives in the instance's ``__dict__``, so the class, other instances and deep copies made outside the
    block are untouched, and the call itself is made once, with its own arguments and result.
    """
    method = getattr(owner, name)

    def listening(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        on_return(result, *args, **kwargs)
        return result

    if name in vars(owner):
        raise RuntimeError(f'{type(owner).__name__}.{name} is already tapped')
    vars(owner)[name] = listening
    try:
        yield
    finally:
        del vars(owner)[name]


@contextmanager
def tap_layer(module: nn.Module, outputs: list) -> Iterator[None]:
    """For the duration of the block, append the module's output to ``outputs`` at each call (a head's layer is called
    once per pyramid level)."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield
    finally:
        handle.remove()
