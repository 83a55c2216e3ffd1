"""Class names that lie beside annotations: data.yaml, classes.txt, obj.names."""
from pathlib import PurePosixPath
from typing import Any

import yaml

from ..errors import DataError
from .files import Files, lines_of

LISTS = ('classes.txt', 'obj.names', '_darknet.labels', 'labels.txt', 'names.txt')


def data_yaml(files: Files) -> tuple[str, dict] | None:
    """Name and content of the YAML file with ``names``; None: there is none.

    Raises:
        DataError: one that cannot be read; several.
    """
    found: list[tuple[str, dict]] = []
    for name in files.of('.yaml', '.yml'):
        try:
            with open(files.path(name), encoding='utf-8') as file:
                content: Any = yaml.safe_load(file)
        except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
            text = ' '.join(str(error).split())
            raise DataError(f'--data: {files.path(name)} is no YAML that can be read ({text}); mend it or take it away'
                            ) from error
        if isinstance(content, dict) and 'names' in content:
            found.append((name, content))
    if len(found) > 1:
        raise DataError(f'--data: several YAML files name classes: {", ".join(name for name, _ in found)}; leave one')
    return found[0] if found else None


def declared(files: Files) -> tuple[str, list[str]] | None:
    """The file that names the classes of YOLO's numbers, and its names; None: there is none.

    Raises:
        DataError: names that are no texts, that repeat, or whose numbers have gaps; files that disagree.
    """
    lists = [name for name in files.of('.txt', '.names', '.labels') if PurePosixPath(name).name in LISTS]
    found = []
    if (described := data_yaml(files)) is not None:
        found.append((described[0], _of_yaml(files.path(described[0]), described[1]['names'])))
    for name in lists:
        found.append((name, _checked(files.path(name), lines_of(files.path(name)))))
    for name, names in found[1:]:
        if names != found[0][1]:
            raise DataError(f'--data: {files.path(found[0][0])} names the classes {found[0][1]}, {files.path(name)} '
                            f'names {names}; mend or remove one of them, or give --classes')
    return found[0] if found else None


def _of_yaml(path: str, names: Any) -> list[str]:
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f'--data: {path}: names has the numbers {sorted(names, key=str)}; 0, 1, 2 ... without gaps '
                            'are expected')
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f'--data: {path}: names is {names!r}; a list, or numbers with names, is expected')
    return _checked(path, [str(name) if isinstance(name, (int, float)) else name for name in names])


def _checked(path: str, names: list) -> list[str]:
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise DataError(f'--data: {path}: found the class names {names}; at least one, no two alike, is expected')
    return names
