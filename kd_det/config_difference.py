"""Configs as plain values, compared key by key; a config that was dumped as text is read and never executed."""
import ast
from collections.abc import Callable
from typing import Any


def plain(value: Any) -> Any:
    """Dicts and lists of numbers, texts, True, False and None; of anything else its ``repr``.

    A dumped config may turn a tuple into a list, so they are the same here.
    """
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def flat(value: Any, key: str = '', keep: Callable[[str], bool] = lambda key: True) -> dict[str, Any]:
    """Dotted key -> value, of plain values; empty dicts and lists are values.

    Args:
        key: where ``value`` stands.
        keep: which dotted keys count, with all below them.
    """
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not parts or not value:
        return {key: value}
    found = {}
    for name, part in parts:
        inner = f'{key}.{name}' if key else str(name)
        if keep(inner):
            found.update(flat(part, inner, keep))
    return found


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys of two flat configs that are only in one, or have another value; sorted."""
    return sorted(key for key in {*one, *other} if (key in one) != (key in other) or one[key] != other[key])


def read_dumped(text: str) -> dict[str, Any]:
    """The top-level assignments of a config that MMEngine has dumped, as plain values; what is no literal is its text.

    Raises:
        SyntaxError: it is not Python.
    """
    return {node.targets[0].id: _literal(node.value) for node in ast.parse(text).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        found = {}
        for keyword in node.keywords:
            found.update({keyword.arg: _literal(keyword.value)} if keyword.arg else _literal(keyword.value))
        return found
    if isinstance(node, ast.Dict):
        return {str(_literal(key)): _literal(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(part) for part in node.elts]
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node)
