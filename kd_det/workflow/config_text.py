"""A config as a file that people read and change."""
from typing import Any

WIDTH = 110


def merged(one: dict, other: dict) -> dict:
    """``one`` with what ``other`` says, dicts within dicts too."""
    result = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict) and not value.get('_delete_')
        result[key] = merged(result[key], value) if both else value
    return result


def nested(options: dict[str, Any]) -> dict:
    """Dotted keys as dicts within dicts."""
    result: dict = {}
    for option, value in options.items():
        *folders, last = option.split('.')
        part: dict = {last: value}
        for name in reversed(folders):
            part = {name: part}
        result = merged(result, part)
    return result


def config_text(comment: str, content: dict[str, Any]) -> str:
    """A Python file: the comment, then a line or a block for each top-level key."""
    lines = [f'# {line}' for line in comment.splitlines()]
    return '\n'.join([*lines, *(f'{key} = {python(value)}' for key, value in content.items())]) + '\n'


def python(value: Any, indent: int = 0) -> str:
    """A value as it stands in a config, in blocks where it is longer than a line."""
    if isinstance(value, dict):
        plain = all(isinstance(key, str) and key.isidentifier() for key in value)
        opening, closing = ('dict(', ')') if plain else ('{', '}')
        parts = [f'{key}=' if plain else f'{key!r}: ' for key in value]
        values = list(value.values())
    elif isinstance(value, (list, tuple)):
        opening, closing = ('[', ']') if isinstance(value, list) else ('(', ')')
        parts, values = [''] * len(value), list(value)
    else:
        return repr(value)
    comma = ',' if isinstance(value, tuple) and len(value) == 1 else ''
    line = opening + ', '.join(part + python(one) for part, one in zip(parts, values)) + comma + closing
    if len(line) + indent <= WIDTH:
        return line
    space = '\n' + ' ' * (indent + 4)
    block = ','.join(f'{space}{part}{python(one, indent + 4)}' for part, one in zip(parts, values))
    return opening + block + comma + closing
