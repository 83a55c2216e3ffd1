"""Which files are for training, which for validation and test, by what they and their folders are called."""
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from ..errors import DataError
from ..own_data import NAMES
from .found import ALL, TEST, TRAIN, VAL

KNOWN = tuple(dict.fromkeys(name for names in NAMES.values() for name in names))


def called(name: str) -> str | None:
    """The word of :data:`KNOWN` in a file's or folder's name ('instances_val2017.json' -> 'val'); None: there is none.
    """
    words = re.split(r'[^a-z]+', PurePosixPath(name).stem.lower())
    return next((word for word in words if word in KNOWN), None)


def word_of(path: str) -> str | None:
    """The word that tells a file's part: its own name's, else that of the innermost folder that has one."""
    pure = PurePosixPath(path)
    return next((word for word in map(called, (pure.name, *reversed(pure.parent.parts))) if word), None)


def folder_word(path: str) -> str | None:
    """As :func:`word_of`, by folders alone: pictures are called anything."""
    return next((word for word in map(called, reversed(PurePosixPath(path).parent.parts)) if word), None)


def assign(words: Sequence[str | None]) -> tuple[dict[str, str], list[str]]:
    """Part -> the word of :data:`KNOWN` that stands for it, and the words that are left over.

    ``train`` before ``trainval``; ``val`` is the first of :data:`kd_det.own_data.NAMES` that is there, the test part
    where there is no other.

    Example:
        >>> assign(['train', 'eval', 'dev', None])
        ({'train': 'train', 'val': 'eval'}, ['dev'])
    """
    there = {word for word in words if word}
    found = {part: next((name for name in NAMES[part] if name in there), None) for part in (TRAIN, VAL, TEST)}
    if found[TEST] == found[VAL]:
        found[TEST] = None
    chosen = {part: word for part, word in found.items() if word}
    if TRAIN not in chosen:
        return {}, sorted(there)
    return chosen, sorted(there - set(chosen.values()))


def by_word(groups: Mapping[str | None, list], what: str) -> tuple[dict[str, list], list[str]]:
    """Part -> members, from members grouped by word; remarks.

    Without a word for training everything is 'all', to be split. Members of other words, and of none, are left out.

    Raises:
        DataError: there are parts, and members of which nobody knows what they are for.
    """
    chosen, rest = assign(list(groups))
    if not chosen:
        return {ALL: [one for members in groups.values() for one in members]}, []
    if None in groups:
        raise DataError(f'--data: {len(groups[None])} {what} lie outside the folders of '
                        f'{", ".join(sorted(chosen.values()))}, e.g. {groups[None][0]!r}; move them into one of these, '
                        'or take them out')
    remarks = [f'not used: {len(groups[word])} {what} of {word!r}' for word in rest]
    return {part: list(groups[word]) for part, word in chosen.items()}, remarks
