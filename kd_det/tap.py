"""Listen in on a method or a layer while something else calls it."""
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced(owner: Any, **methods: Callable) -> Iterator[None]:
    """For the duration of the block, ``methods`` stand in the place of the methods of one object.

    They live in the instance's ``__dict__``, so its class, other instances and deep copies made outside the block are
    untouched. Blocks nest: what was there before the block is there again after it.
    """
    instance = vars(owner)
    before = {name: instance[name] for name in methods if name in instance}
    instance.update(methods)
    try:
        yield
    finally:
        for name in methods:
            del instance[name]
        instance.update(before)


@contextmanager
def tap_method(owner: Any, name: str, on_return: Callable[[Any, dict[str, Any]], None]) -> Iterator[None]:
    """For the duration of the block, call ``on_return(result, arguments)`` after each ``owner.name(...)``.

    The call itself is made once, with its own arguments and result. ``arguments`` is by name, defaults included.
    """
    method = getattr(owner, name)
    signature = inspect.signature(method)

    @functools.wraps(method)  # who listens to this call too sees the names of its arguments
    def listening(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        on_return(result, bound.arguments)
        return result

    with replaced(owner, **{name: listening}):
        yield


@contextmanager
def tap_layer(module: nn.Module, on_output: Callable[[Any], None]) -> Iterator[None]:
    """For the duration of the block, call ``on_output(output)`` each time the module is called (a head's layer is
    called once per pyramid level).
    """
    handle = module.register_forward_hook(lambda _module, _inputs, output: on_output(output))
    try:
        yield
    finally:
        handle.remove()
