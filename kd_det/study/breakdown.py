"""Where a study's differences come from: classes, sizes of objects, kinds of errors."""
import os.path as osp

from ..compare.error_types import TYPES
from ..compare.frequency import mean_ap
from ..compare.rows import spread_of
from ..compare.table import spread_text
from ..files import write_whole
from .definition import Study
from .image_intervals import Found
from .table import interval, line


def breakdown(study: Study, images: dict[str, Found], records: dict[str, dict[int, dict]] | None = None) -> str:
    """Markdown; '' where nothing is recorded that is kept by class or image.

    Args:
        images (dict[str, Found]): of :func:`.image_intervals.image_intervals`.
        records (dict): of each row, by seed; for the means over groups of classes that the study names.
    """
    tables = []
    compared = [row for row in study.rows if images[row.name].differences]
    if compared:
        columns = [name for name in images[compared[0].name].differences if name not in ('AP50', 'AP75')]
        heads = ' | '.join(name.removeprefix('class/') for name in columns)
        lines = [f'| | less | {heads} |', '| --- | --- |' + ' ---: |' * len(columns)]
        for row in compared:
            found = images[row.name].differences
            lines.append(line([row.label, study.row(study.base_of(row)).label,
                                *(f'{found[name].value:+.1f} {interval(found[name])}' if name in found else '-'
                                  for name in columns)]))
        tables += [f'**{study.title}: differences by size of object and by class** (AP points, 95 % over images)', '',
                   *lines, '']
    if study.groups:
        tables += _by_group(study, records)
    priced = [row for row in study.rows if images[row.name].errors]
    if priced:
        lines = [f'| | {" | ".join(TYPES)} |', '| --- |' + ' ---: |' * len(TYPES)]
        lines += [line([row.label, *(f'{images[row.name].errors[kind]:.1f}' for kind in TYPES)]) for row in priced]
        tables += [f'**{study.title}: error types** (AP50 points that fixing each alone would give; mean over seeds)',
                   '', *lines, '']
    return '\n'.join(tables)


def _by_group(study: Study, records: dict[str, dict[int, dict]] | None) -> list[str]:
    """A table of mean AP over the classes of each group; over seeds, mean and sd."""
    heads = ' | '.join(f'{name} ({", ".join(classes)})' for name, classes in study.groups.items())
    lines = [f'| | {heads} |', '| --- |' + ' ---: |' * len(study.groups)]
    for row in study.rows:
        runs = (records or {}).get(row.name)
        if runs:
            values = [[mean_ap(run['per_class'], classes) for run in runs.values()]
                      for classes in study.groups.values()]
            lines.append(line([row.label, *(spread_text(spread_of(one)) for one in values)]))
    return [f'**{study.title}: mean AP by group of classes**', '', *lines, ''] if len(lines) > 2 else []


def write_page(results: str, study: Study, table: str, details: str) -> None:
    """``README.md`` beside the study's records, with all of its tables."""
    if details:
        write_whole(osp.join(results, study.name, 'README.md'), f'{table}\n\n{details.rstrip()}\n')
