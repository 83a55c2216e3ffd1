"""Where a study's differences come from: classes, sizes of objects, kinds of errors."""
import os.path as osp

from ..compare.error_types import TYPES
from .definition import Study
from .image_intervals import Found
from .records import write_atomically
from .table import interval, line


def breakdown(study: Study, images: dict[str, Found]) -> str:
    """Markdown; '' where no detections are kept.

    Args:
        images (dict[str, Found]): of :func:`.image_intervals.image_intervals`.
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
    priced = [row for row in study.rows if images[row.name].errors]
    if priced:
        lines = [f'| | {" | ".join(TYPES)} |', '| --- |' + ' ---: |' * len(TYPES)]
        lines += [line([row.label, *(f'{images[row.name].errors[kind]:.1f}' for kind in TYPES)]) for row in priced]
        tables += [f'**{study.title}: error types** (AP50 points that fixing each alone would give; mean over seeds)', '',
                   *lines, '']
    return '\n'.join(tables)


def write_page(results: str, study: Study, table: str, details: str) -> None:
    """``README.md`` beside the study's records, with all of its tables."""
    if details:
        write_atomically(osp.join(results, study.name, 'README.md'), f'{table}\n\n{details.rstrip()}\n')
