"""AP of rare, common and frequent classes: groups by the number of training images."""
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..datasets.long_tail import images_per_class
from ..errors import CompareError
from .rows import Row, spread_of
from .table import Column, spread_text

LIMITS = (10, 100)
"""LVIS: rare up to 10 training images, common up to 100, frequent above (Gupta et al. 2019, arXiv 1908.03195)."""
GROUPS = ('rare', 'common', 'frequent')


@dataclass
class Group:
    """Classes with similarly many training images.

    Attributes:
        name: 'rare', 'common' or 'frequent'.
        classes: their names.
        least, most: of their images.
    """

    name: str
    classes: list[str]
    least: int
    most: int

    def __str__(self) -> str:
        images = f'{self.least}' if self.least == self.most else f'{self.least}-{self.most}'
        return f'{self.name} ({len(self.classes)} of {images} images)'


def groups_of(counts: Mapping[str, int], limits: Sequence[int] = LIMITS) -> list[Group]:
    """The groups that have a class, the rarest first.

    Args:
        counts: training images of each class.
        limits: up to how many images a class is rare, and up to how many common.

    Raises:
        CompareError: limits that do not rise.
    """
    rare, common = limits
    if not 0 < rare < common:
        raise CompareError(f'--frequency-limits {rare} {common}: two rising numbers above 0 are expected')
    found = []
    for name, low, high in zip(GROUPS, (0, rare, common), (rare, common, float('inf'))):
        inside = {one: n for one, n in counts.items() if low < n <= high}
        if inside:
            found.append(Group(name, list(inside), min(inside.values()), max(inside.values())))
    return found


def read_counts(path: str) -> dict[str, int]:
    """Training images of each class of a COCO annotation file.

    Raises:
        CompareError: it is none.
    """
    try:
        with open(path, encoding='utf-8') as file:
            return images_per_class(json.load(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompareError(f'--frequency {path!r} cannot be read as a COCO annotation file: {error!r}') from error


def mean_ap(per_class: Mapping[str, float | None], classes: Sequence[str]) -> float | None:
    """The mean over classes that have an AP; None: none of them has."""
    values = [per_class[name] for name in classes if per_class.get(name) is not None]
    return sum(values) / len(values) if values else None


def frequency_columns(rows: Sequence[Row], groups: Sequence[Group]) -> tuple[list[str], list[Column]]:
    """Mean AP by group: one line a group, one column a detector.

    Raises:
        CompareError: classes that the training file does not know.
    """
    known = {name for group in groups for name in group.classes}
    strange = sorted({name for row in rows for name in row.classes} - known)
    if strange:
        raise CompareError(f'--frequency: the training file has no image of {strange}, which the evaluation counts; is '
                           'it of the same classes?')
    return [str(group) for group in groups], [
        Column(row.name, '',
               [spread_text(spread_of([member.accuracy and mean_ap(member.accuracy.per_class, group.classes)
                                                     for member in row.members])) for group in groups]) for row in rows]
