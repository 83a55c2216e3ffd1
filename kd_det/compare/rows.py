"""One row of the comparison: a run, or the seeds of one config together."""
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from .accuracy import Accuracy
from .cost import Latency
from .runs import Run


@dataclass
class Member:
    """A run with what its checkpoint says about it.

    Attributes:
        run (Run): where it lies.
        seed (int | None): of its training.
        recipe (str): equal for runs that differ in the seed alone.
        accuracy (Accuracy | None): None where it was not evaluated.
        dataset (str | None): what the accuracy was measured on.
        file_mb (float | None): size of the checkpoint file, MB (1e6 bytes); None for a URL.
        weights_mb (float): size of the deployed weights alone, MB.
    """
    run: Run
    seed: int | None
    recipe: str
    accuracy: Accuracy | None
    dataset: str | None
    file_mb: float | None
    weights_mb: float


@dataclass
class Spread:
    """Mean and sample standard deviation (n - 1 in the denominator; None for one value)."""
    values: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass
class Row:
    """Members share everything but the seed; costs are those of the first member."""
    name: str
    members: list[Member]
    parameters: int | None = None
    multiply_adds: float | None = None
    sizes: list[tuple[int, int]] = field(default_factory=list)
    latency: Latency | None = None

    def figure(self, column: str) -> Spread | None:
        """AP column over the members; None unless every member has it."""
        return spread_of([m.accuracy and m.accuracy.figures[column] for m in self.members])

    def class_ap(self, name: str) -> Spread | None:
        return spread_of([m.accuracy and m.accuracy.per_class.get(name) for m in self.members])

    @property
    def classes(self) -> list[str]:
        return list(self.members[0].accuracy.per_class) if self.members[0].accuracy else []


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """None unless every member has a value."""
    return None if any(v is None for v in values) else Spread(list(values))


def fold(members: Sequence[Member], keep_apart: bool = False) -> tuple[list[Row], list[str]]:
    """Group the seeds of one config.

    Runs with equal recipes, evaluated on the same data, become one row if all their seeds are known and different;
    otherwise they would count one training twice, and stay apart.

    Returns:
        tuple: rows in the order of their first members, and remarks for the reader.
    """
    groups: dict[object, list[Member]] = {}
    for i, member in enumerate(members):
        groups.setdefault(i if keep_apart else (member.recipe, member.dataset),
                          []).append(member)
    rows, remarks = [], []
    for group in groups.values():
        seeds = [m.seed for m in group]
        if len(group) > 1 and (None in seeds or len(set(seeds)) < len(seeds)):
            remarks.append('not folded, though of one config, because the seeds are not different ('
                           + ', '.join(f'{m.run.name}: {m.seed}' for m in group) + ')')
            rows += [Row(m.run.name, [m]) for m in group]
        else:
            rows.append(Row(_name(group), group))
    _make_names_differ(rows)
    order = {id(m): i for i, m in enumerate(members)}
    return sorted(rows, key=lambda row: order[id(row.members[0])]), remarks


def _name(group: list[Member]) -> str:
    names = {m.run.name for m in group}
    return names.pop() if len(names) == 1 else group[0].run.config_name


def _make_names_differ(rows: list[Row]) -> None:
    seen: dict[str, int] = {}
    for row in rows:
        seen[row.name] = seen.get(row.name, 0) + 1
        if seen[row.name] > 1:
            row.name = f'{row.name} ({seen[row.name]})'


def ap_difference(row: Row, first: Row) -> float | None:
    """AP of a row less that of the first, in AP points (of means, where seeds are folded).

    None if one of them is missing, or if they were measured on different data sets.
    """
    mine, reference = row.figure('AP'), first.figure('AP')
    if mine is None or reference is None or row.members[0].dataset != first.members[0].dataset:
        return None
    return mine.mean - reference.mean


def latency_ratio(row: Row, first: Row) -> float | None:
    """Median latency of a row by that of the first."""
    if row.latency is None or first.latency is None:
        return None
    return row.latency.median / first.latency.median
