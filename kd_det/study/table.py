"""The table of a study out of its records: means, paired differences with intervals, share of the gap closed."""
import math
import os.path as osp
import statistics
from dataclasses import dataclass

from ..compare.bootstrap import DRAWS, ImageDifference
from ..errors import StudyError
from ..files import write_whole
from .definition import Study
from .image_intervals import Found
from .records import row_records

# 0.975 quantiles of Student's t for 1, 2, ... degrees of freedom.
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
      2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860)


def t_quantile(freedom: int) -> float:
    """0.975 quantile of Student's t: tabled up to 20 degrees of freedom, then Cornish-Fisher (error below 1e-4)."""
    if freedom < 1:
        raise ValueError(f'{freedom} degrees of freedom; at least 1 is needed, that is two seeds')
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, n = 1.959963985, freedom
    return (z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3))


@dataclass
class Difference:
    """Row less base, in AP, over the seeds that both have. ``low`` and ``high`` are None for one seed.

    Attributes:
        seeds (list[int]): the pairs.
        mean, low, high (float): mean and its 95 % confidence interval.
        gap_share (float | None): mean over (teacher - base on the same seeds); None unless the teacher is better.
    """
    seeds: list
    mean: float
    low: float | None
    high: float | None
    gap_share: float | None

    @property
    def wins(self) -> bool | None:
        """Whether the interval lies above zero; None for one seed."""
        return None if self.low is None else self.low > 0


def paired_difference(row: dict, base: dict, teacher: float | None = None) -> Difference | None:
    """Paired by seed, the differences taken as normal: mean +- t(n - 1) sd / sqrt(n).

    Args:
        row, base (dict[int, float]): AP by seed.
        teacher (float | None): its AP.

    Returns:
        Difference | None: None without a common seed.
    """
    seeds = sorted(set(row) & set(base))
    if not seeds:
        return None
    deltas = [row[seed] - base[seed] for seed in seeds]
    mean = statistics.fmean(deltas)
    low = high = share = None
    if len(seeds) > 1:
        half = t_quantile(len(seeds) - 1) * statistics.stdev(deltas) / math.sqrt(len(seeds))
        low, high = mean - half, mean + half
    if teacher is not None:
        gap = teacher - statistics.fmean(base[seed] for seed in seeds)
        share = mean / gap if gap > 0 else None
    return Difference(seeds, mean, low, high, share)


def study_table(study: Study, results: str, images: dict[str, Found] | None = None) -> str:
    """Markdown of a study; a row without records says so.

    Args:
        images (dict[str, Found] | None): of :func:`.image_intervals.image_intervals`; intervals over images get a
            column of their own if there are any.
    """
    images = {name: found.differences for name, found in (images or {}).items() if found.differences}
    records = {row.name: row_records(results, row) for row in study.rows}
    ap = {name: figures(found, 'AP') for name, found in records.items()}
    heads = ['seeds', 'AP', 'AP50', 'AP - base [95 % interval]', 'gap closed']
    if images:
        heads[3:4] = ['AP - base [95 % over seeds]', '[95 % over images]']
    lines = [f'| | what | {" | ".join(heads)} |', '| --- | --- |' + ' ---: |' * len(heads)]
    for row in study.rows:
        cells = [row.label, row.description, str(len(records[row.name])), spread(ap[row.name]),
                 spread(figures(records[row.name], 'AP50'))]
        difference, gap = _compared(study, row, ap)
        over_images = interval(images.get(row.name, {}).get('AP')) if difference else ''
        cells += [difference, over_images, gap] if images else [difference, gap]
        lines.append(line(cells))
    return '\n'.join([f'**{study.title}** ({study.split}, last epoch, AP in percent)', '', *lines, '',
                      *notes(study, records, bool(images))])


def line(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def interval(difference: ImageDifference | None) -> str:
    """``[low, high]`` of a difference over images."""
    return '-' if difference is None else f'[{difference.low:+.1f}, {difference.high:+.1f}]'


def _compared(study: Study, row, ap: dict) -> list[str]:
    teachers = study.teaching()
    base = study.base_of(row)
    others_bases = {r.base for r in study.rows} if row.base is None else set()
    if row.name in teachers or row.name in {base, study.base, *others_bases}:
        return ['', '']
    teacher, seed = study.teacher_of(row) or (None, 0)
    best = ap.get(teacher, {}).get(seed) if teacher != base else None  # a row over the teacher itself closes no gap
    difference = paired_difference(ap[row.name], ap[base], best)
    if difference is None:
        return ['-', '-']
    text = f'{difference.mean:+.1f}'
    if base != study.base:
        text += f' (over {study.row(base).label})'
    if difference.low is not None:
        text += f' [{difference.low:+.1f}, {difference.high:+.1f}]'
    if len(difference.seeds) < len(ap[row.name]):
        text += f' ({len(difference.seeds)} pairs)'
    return [text, '-' if difference.gap_share is None else f'{100 * difference.gap_share:.0f} %']


def figures(records: dict, column: str) -> dict[int, float]:
    """One AP column by seed, without the seeds that have nothing to measure."""
    return {seed: record['accuracy'][column] for seed, record in records.items()
            if record['accuracy'].get(column) is not None}


def spread(values: dict[int, float]) -> str:
    if not values:
        return '-'
    sd = f' ± {statistics.stdev(values.values()):.1f}' if len(values) > 1 else ''
    return f'{statistics.fmean(values.values()):.1f}{sd}'


def notes(study: Study, records: dict, over_images: bool = False) -> list[str]:
    """What a reader must know about the figures: spread, missing runs, mixed conditions."""
    found = [record for row in records.values() for record in row.values()]
    if not found:
        return ['No run is recorded yet.']
    lines = ['± is the standard deviation over seeds; differences are paired by seed, intervals '
             + ('over seeds ' if over_images else '') + 'are Student\'s t.'
             + (f' Intervals over images: paired bootstrap, {DRAWS:,} draws of the evaluation images, seeds as they '
                'are.'
                if over_images else '')]
    for row in study.rows:
        if len({r['config_sha256'] for r in records[row.name].values()}) > 1:
            lines.append(f'Row {row.label!r} mixes seeds of different configs.')
        if len({str([r.get('teacher'), r.get('sources')]) for r in records[row.name].values()}) > 1:
            lines.append(f'Row {row.label!r} mixes seeds with different teachers.')
    for row in study.rows:
        shares = [r['first_teaches'] for r in records[row.name].values() if 'first_teaches' in r]
        if shares and row.network == 'first':
            share = 100 * statistics.fmean(shares)
            lines.append(f'{row.label}: the first network assigned in {share:.0f} % of the decisions.')
    cpus = sorted({(r.get('hardware') or {}).get('device') or 'unknown hardware' for r in found})
    torch = sorted({(r.get('versions') or {}).get('torch') or 'unknown' for r in found})
    runs = [record for row in study.rows if row.network == 'first' for record in records[row.name].values()]
    hours = sum(r.get('wall_seconds') or 0 for r in runs) / 3600
    lines.append(f'{len(runs)} runs, {hours:.1f} hours of wall time on {", ".join(cpus)}; '
                 f'PyTorch {", ".join(torch)}.')
    return lines


def replace_marked(text: str, name: str, table: str) -> str | None:
    """``text`` with ``table`` between ``<!-- study:NAME -->`` and ``<!-- /study:NAME -->``; None without them.

    Raises:
        StudyError: only one of the two markers, or one of them more than once.
    """
    begin, end = f'<!-- study:{name} -->', f'<!-- /study:{name} -->'
    counts = text.count(begin), text.count(end)
    if counts == (0, 0):
        return None
    if counts != (1, 1) or text.index(begin) > text.index(end):
        raise StudyError(f'the markers {begin} and {end} must stand once each and in this order; found {counts[0]} '
                         f'and {counts[1]}')
    head, rest = text.split(begin)
    return f'{head}{begin}\n{table}\n{end}{rest.split(end)[1]}'


def write_readme(path: str, name: str, table: str) -> bool:
    """Put the table between its markers in a Markdown file. Returns whether there are markers to write between."""
    if not osp.isfile(path):
        return False
    with open(path, encoding='utf-8') as file:
        text = file.read()
    try:
        changed = replace_marked(text, name, table)
    except StudyError as error:
        raise StudyError(f'{path}: {error}') from None
    if changed is not None and changed != text:
        write_whole(path, changed)
    return changed is not None
