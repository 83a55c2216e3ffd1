"""The comparison as text that fits a terminal, as Markdown, and as JSON."""
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from .accuracy import FIGURES
from .rows import Member, Row, Spread, ap_difference, latency_ratio

_NAME_WIDTH = 18  # narrower than that a name is hard to read; then the table continues below
_GAP = '  '


@dataclass
class Column:
    """Two header lines (what, unit) and one cell a row."""
    head: str
    unit: str
    cells: list[str]
    starts_group: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.head, self.unit, *self.cells)))


def _number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    if value is None:
        return '-'
    return f'{value:{"+" if sign else ""}.{digits}f}'


def _three(value: float | None) -> str:
    """Three significant digits, never in powers of ten."""
    if value is None:
        return '-'
    return f'{value:.{max(0, 2 - _magnitude(value))}f}'


def _magnitude(value: float) -> int:
    return len(str(int(abs(value)))) - 1 if abs(value) >= 1 else 0


def spread_text(spread: Spread | None) -> str:
    """Mean, and sd where there are several."""
    if spread is None:
        return '-'
    return _number(spread.mean) + ('' if spread.sd is None else f' ± {_number(spread.sd)}')


def main_columns(rows: Sequence[Row], timed: bool = True) -> list[Column]:
    """Accuracy in percent, then cost; columns that nobody asked for are left out."""
    first = rows[0]
    columns = []
    if any(len(row.members) > 1 for row in rows):
        columns.append(Column('n', 'seeds', [str(len(row.members)) for row in rows]))
    for name in FIGURES:
        columns.append(Column(name, '', [spread_text(row.figure(name)) for row in rows]))
        if name == 'AP' and len(rows) > 1:
            columns.append(Column('ΔAP', '', ['' if row is first else
                                              _number(ap_difference(row, first), sign=True)
                                              for row in rows]))
    columns.append(Column('params', 'M', [_three(row.parameters / 1e6) for row in rows],
                          starts_group=True))
    columns.append(Column('GFLOPs', '', [
        _three(None if row.multiply_adds is None else row.multiply_adds / 1e9) for row in rows]))
    if timed:
        times = [row.latency for row in rows]
        columns.append(Column('median', 'ms', [_three(t and t.median) for t in times]))
        columns.append(Column('p90', 'ms', [_three(t and t.p90) for t in times]))
        columns.append(Column('img/s', '', [_three(t and t.images_per_second) for t in times]))
        if len(rows) > 1:
            columns.append(Column('time', 'ratio', [
                '' if row is first else _number(latency_ratio(row, first), 2) + 'x'
                for row in rows]))
    columns.append(Column('file', 'MB', [_three(row.members[0].file_mb) for row in rows]))
    return columns


def class_names(rows: Sequence[Row]) -> list[str]:
    """Classes of all rows, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row.classes))


def class_columns(rows: Sequence[Row]) -> tuple[list[str], list[Column]]:
    """AP by class: one line a class, one column a row of the main table."""
    names = class_names(rows)
    return names, [Column(row.name, '', [spread_text(row.class_ap(name)) for name in names])
                   for row in rows]


def text(title: str, names: Sequence[str], columns: Sequence[Column], width: int = 120) -> str:
    """Right-aligned columns in ``width`` characters.

    Names are wrapped where that suffices; otherwise the table continues below, from the next group of columns where
    there are groups.
    """
    head = min(max(map(len, (title, *names))), _NAME_WIDTH)

    def used(block: Sequence[Column]) -> int:
        return head + sum(len(_GAP) + column.width for column in block)

    blocks: list[list[Column]] = [list(columns)]
    if used(columns) > width:
        blocks = [[]]
        for column in columns:
            if blocks[-1] and (column.starts_group or used([*blocks[-1], column]) > width):
                blocks.append([])
            blocks[-1].append(column)
    return '\n\n'.join(
        '\n'.join(_block([_wrap(name, max(width - used(block) + head, head))
                          for name in (title, *names)], block)) for block in blocks)


def _block(wrapped: list[list[str]], columns: list[Column]) -> list[str]:
    left = max(len(part) for parts in wrapped for part in parts)

    def line(name: str, cells: Sequence[str]) -> str:
        return _GAP.join([name.ljust(left)] + [cell.rjust(column.width)
                                               for cell, column in zip(cells, columns)]).rstrip()
    lines = [line(wrapped[0][0], [c.head for c in columns])]
    if any(c.unit for c in columns):
        lines.append(line('', [c.unit for c in columns]))
    lines.append('-' * max(len(line('', ['x' * c.width for c in columns])), left))
    for i, parts in enumerate(wrapped[1:]):
        lines.append(line(parts[0], [c.cells[i] for c in columns]))
        lines += parts[1:]
    return lines


def _wrap(name: str, width: int) -> list[str]:
    """Break a run's name after ``_``, ``-``, ``/`` or a space; what follows is indented by two."""
    parts = re.findall(r'[^-_/ ]*[-_/ ]|[^-_/ ]+', name)
    lines = ['']
    for part in parts:
        while len(lines[-1]) + len(part) > width:
            room = width - len(lines[-1])
            if lines[-1].strip():
                room = 0  # there is a place to break
            lines[-1] += part[:room]
            part = part[room:]
            lines.append('  ')
        lines[-1] += part
    return lines


def markdown(title: str, names: Sequence[str], columns: Sequence[Column]) -> str:
    """A GitHub table; units stand in the header."""
    def line(cells: Sequence[str]) -> str:
        return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'
    heads = [f'{c.head} ({c.unit})' if c.unit else c.head for c in columns]
    lines = [line([title, *heads]), '|' + '|'.join([' --- '] + [' ---: '] * len(columns)) + '|']
    lines += [line([name, *(c.cells[i] for c in columns)]) for i, name in enumerate(names)]
    return '\n'.join(lines)


def as_json(rows: Sequence[Row], notes: Sequence[str], environment: dict) -> dict:
    """Everything, unrounded; AP in percent. Holds None, never NaN."""
    def spread(value: Spread | None) -> dict | None:
        return value and {'mean': value.mean, 'sd': value.sd, 'values': value.values}

    def run(member: Member) -> dict:
        return {'name': member.run.name, 'config': member.run.config_name,
                'checkpoint': member.run.checkpoint, 'seed': member.seed,
                'evaluated_on': member.dataset, 'checkpoint_file_mb': member.file_mb,
                'weights_mb': member.weights_mb}

    def latency(row: Row) -> dict | None:
        times = row.latency
        return times and {'median_ms': times.median, 'p90_ms': times.p90,
                          'images_per_second': times.images_per_second,
                          'ratio': latency_ratio(row, rows[0]), 'times_ms': times.times}

    def entry(row: Row) -> dict:
        return {'name': row.name, 'n': len(row.members), 'runs': [run(m) for m in row.members],
                'accuracy': {name: spread(row.figure(name)) for name in FIGURES},
                'per_class': {name: spread(row.class_ap(name)) for name in row.classes},
                'ap_difference': ap_difference(row, rows[0]),
                'parameters': row.parameters, 'multiply_adds': row.multiply_adds,
                'input_sizes': [list(size) for size in row.sizes], 'latency': latency(row)}

    return {'rows': [entry(row) for row in rows], 'notes': list(notes), 'environment': environment}


def notes(remarks: Sequence[str], width: int = 120) -> str:
    """Remarks below a text table."""
    return '\n'.join(textwrap.fill(remark, width, initial_indent='* ', subsequent_indent='  ')
                     for remark in remarks)
