"""The one place where a dict of a config is checked against a constructor's signature, and built."""
import difflib
import inspect
from collections.abc import Callable
from typing import Any

from mmengine.registry import DefaultScope, Registry

from .errors import CheckpointMismatch, ConfigError


def check_arguments(key: str, found: Any, target: Any, filled: tuple[str, ...] = (), example: str = '') -> dict:
    """``found`` as a dict of arguments that ``target`` takes.

    Args:
        key (str): where it stands in the config, for messages.
        found: what stands there.
        target: a class or function.
        filled (tuple[str]): arguments that the caller fills in; the config may not.
        example (str): what would do, for the message when ``found`` is no dict.

    Raises:
        ConfigError: no dict, unknown keys, required keys that are missing.
    """
    if not isinstance(found, dict):
        raise ConfigError(f'{key}: found {found!r}; a dict is expected' + (f', {example}' if example else ''))
    takes, takes_more = arguments_of(target)
    if takes_more:
        return dict(found)
    known = {name: parameter for name, parameter in takes.items() if name not in filled}
    unknown = [name for name in found if name not in known]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), known, n=1)
        given = [name for name in unknown if name in filled]
        raise ConfigError(f'{key}: unknown keys {sorted(map(str, unknown))}'
                          + (f'; {given[0]!r} is filled in, leave it out' if given else '')
                          + (f'; did you mean {close[0]!r}?' if close and not given else '')
                          + f'; known are {sorted(known)}')
    missing = [name for name, parameter in known.items() if parameter.default is parameter.empty and name not in found]
    if missing:
        raise ConfigError(f'{key}: {", ".join(missing)} missing, found {sorted(found)}; known are {sorted(known)}')
    return dict(found)


def build(key: str, cfg: Any, registry: Registry, default: str | dict | None = None, /, **filled: Any) -> Any:
    """Build ``cfg`` from a registry of MMDetection's, with errors that name ``key``.

    Args:
        key (str): where ``cfg`` stands in the config.
        cfg: a dict; one without ``type`` means the default's type.
        default (str | dict | None): the type, or the whole dict, where ``cfg`` does not say. What ``cfg`` leaves out is
            the default's as long as the type is.
        **filled: arguments that follow from elsewhere; those that the class does not take are left out.

    Raises:
        ConfigError: no dict, no such type, unknown or missing keys, values that the constructor refuses.
    """
    default = dict(type=default) if isinstance(default, str) else dict(default or {})
    if not isinstance(cfg, dict):
        example = f'dict(type={default["type"]!r}, ...)' if 'type' in default else 'dict(type=...)'
        raise ConfigError(f'{key}: found {cfg!r}; a dict is expected, {example}')
    cfg = dict(cfg)
    if cfg.setdefault('type', default.get('type')) == default.get('type'):
        cfg = {**default, **cfg}
    kind, scope = cfg.pop('type'), cfg.pop('_scope_', None)  # MMEngine writes it below a base of another package
    if kind is None:
        raise ConfigError(f'{key}.type: missing; found {sorted(cfg)}')
    with DefaultScope.overwrite_default_scope(scope or 'mmdet'):
        cls = registry.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        close = difflib.get_close_matches(str(kind), registry.module_dict, n=3)
        raise ConfigError(f'{key}.type: {kind!r} is not registered'
                          + (f'; did you mean {" or ".join(map(repr, close))}?' if close else ''))
    takes, takes_more = arguments_of(cls)
    filled = {name: value for name, value in filled.items() if takes_more or name in takes}
    arguments = check_arguments(key, cfg, cls, tuple(filled))
    try:
        with DefaultScope.overwrite_default_scope(scope):  # None changes nothing
            return cls(**arguments, **filled)
    except (ConfigError, CheckpointMismatch):
        raise
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        # mmengine names the class in some of these; str of a KeyError has quotes around it
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ConfigError(f'{key}: {text or type(error).__name__}') from error


def checked(key: str, check: Callable, value: Any, *more: Any) -> Any:
    """``check(key, value, *more)``, one of :mod:`kd_det.arguments`, complaining as a config's value is complained of.

    Raises:
        ConfigError: the value is refused; the message names the key, what was found and what would do.
    """
    try:
        return check(key, value, *more)
    except (TypeError, ValueError) as error:
        rule = str(error).removeprefix(f'{key} must be ').rsplit(', found ', 1)[0]
        raise ConfigError(f'{key}: found {value!r}; it must be {rule}') from error


def arguments_of(target: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """Named arguments through the chain of constructors that pass ``**kwargs`` on; whether the last takes any more."""
    functions = ([base.__init__ for base in target.__mro__ if '__init__' in vars(base) and base is not object]
                 if inspect.isclass(target) else [target])
    found: dict[str, inspect.Parameter] = {}
    for function in functions:
        parameters = list(inspect.signature(function).parameters.values())
        if inspect.isclass(target):
            parameters = parameters[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return found, False
    return found, True
