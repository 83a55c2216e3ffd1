"""The comparison as one HTML page: tables, inline SVG charts and a gallery; no server, no network."""
import re
from collections.abc import Sequence
from html import escape

from .charts import bars, curves, legend, scatter
from .comparison import Comparison
from .error_types import TYPES
from .gallery import Gallery
from .report_gallery import SCRIPT, gallery
from .report_gallery import STYLE as GALLERY_STYLE
from .rows import Row
from .table import Column, class_columns, class_names, main_columns

STYLE = '''
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; margin: 0 auto; max-width: 70rem;
       padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 3px solid #0072B2; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
thead th { border-bottom: 2px solid #555; vertical-align: bottom; } .unit { color: #595959; font-weight: normal; }
svg { display: block; width: 100%; max-width: 44rem; height: auto; } svg text { font: 13px system-ui, sans-serif; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
@media (max-width: 40rem) { svg text { font-size: 20px; } }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .3rem 0; }
ul.legend li { overflow-wrap: anywhere; }
.key { display: inline-block; width: .9rem; height: .9rem; margin-right: .4rem; vertical-align: -.1rem;
       border-radius: 2px; }
.notes { color: #444; font-size: .9rem; }
'''

DISTILLATION_WORDS = frozenset(('hint', 'distill', 'bckd', 'cross', 'ld', 'cbd', 'peer', 'pseudo', 'unlabelled'))
"""A term of your own appears with the distillation terms if its names in the log have one of these words."""


def page(result: Comparison, timed: bool = True) -> str:
    """The whole page.

    Args:
        result: what :func:`.comparison.compare` found.
        timed: whether latency was measured.
    """
    rows = result.rows
    names = [row.name for row in rows]
    parts = ['<h1>Comparison of detectors</h1>', legend(names), '<h2>Accuracy and cost</h2>',
             table('detector', names, main_columns(rows, timed))]
    if points := _points(rows, timed):
        what = 'median latency per image (ms)' if timed else 'GFLOPs per image'
        parts += [f'<h2>AP against {"latency" if timed else "operations"}</h2>', scatter(points, names, what)]
    if classes := class_names(rows):
        parts += ['<h2>AP by class</h2>', _class_bars(classes, rows), table('class', *class_columns(rows))]
    if seen := result.gallery:
        parts += ['<h2>Kinds of mistakes</h2>', *_mistakes(seen), '<h2>Detections side by side</h2>', gallery(seen)]
    if charts := loss_charts(rows):
        parts += ['<h2>Losses over training</h2>',
                  '<p>Task losses are the student\'s own; distillation terms are what distillation adds. The first '
                  'seed of each detector.</p>', *charts]
    notes = ''.join(f'<li>{escape(note)}</li>' for note in result.notes)
    facts = ''.join(f'<li>{escape(str(key))}: {escape(str(value))}</li>' for key, value in result.environment.items())
    parts += ['<h2>Conditions</h2>', f'<ul class="notes">{notes}{facts}</ul>']
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Comparison of detectors</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f'<style>{STYLE}{GALLERY_STYLE}</style></head>\n<body><main>\n' + '\n'.join(parts) + '\n</main>'
            + (f'<script>{SCRIPT}</script>' if result.gallery else '') + '</body></html>\n')


def table(title: str, names: Sequence[str], columns: Sequence[Column]) -> str:
    """Scrolls sideways by itself, by keyboard too, where the screen is narrower."""
    units = [f'<br><span class="unit">{escape(c.unit)}</span>' if c.unit else '' for c in columns]
    head = ''.join(f'<th scope="col">{escape(c.head)}{unit}</th>' for c, unit in zip(columns, units))
    lines = ''.join(f'<tr><th scope="row">{escape(name)}</th>'
                    + ''.join(f'<td>{escape(c.cells[i])}</td>' for c in columns) + '</tr>'
                    for i, name in enumerate(names))
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}"><table><thead><tr>'
            f'<th scope="col">{escape(title)}</th>{head}</tr></thead><tbody>{lines}</tbody></table></div>')


def _points(rows: Sequence[Row], timed: bool) -> list[tuple[int, float, float, float]]:
    """(row, cost, AP, sd) of the rows that have both."""
    found = []
    for i, row in enumerate(rows):
        cost = (row.latency and row.latency.median) if timed else (row.multiply_adds and row.multiply_adds / 1e9)
        ap = row.figure('AP')
        if cost and ap is not None:
            found.append((i, cost, ap.mean, ap.sd or 0.0))
    return found


def _class_bars(classes: Sequence[str], rows: Sequence[Row]) -> str:
    values = [[spread and spread.mean for spread in map(row.class_ap, classes)] for row in rows]
    return bars(classes, [row.name for row in rows], values, 'AP by class (%)')


def _mistakes(seen: Gallery) -> list[str]:
    """What each type of error costs each detector, as bars and as a table with the numbers of errors."""
    names, errors = seen.names, seen.errors
    costs = [[one.costs[kind] for kind in TYPES] for one in errors]
    columns = [Column(kind, '', [f'{one.costs[kind]:.1f} ({one.counts()[kind]})' for one in errors]) for kind in TYPES]
    columns = [Column('AP50', '', [f'{one.ap50:.1f}' for one in errors]), *columns]
    top = max([1.0, *(value for of_one in costs for value in of_one)])
    where = f'{seen.count} images of {seen.total}' if seen.count < seen.total else f'{seen.total} images'
    return [f'<p>AP50 points that each type costs, in {where} (TIDE, Bolya et al. 2020); in the table also how many '
            'there are. Detections of any score count, so duplicates and background are many and cost little.</p>',
            bars(TYPES, names, costs, 'AP50 points lost by type of error', full=top), table('detector', names, columns)]


def loss_charts(rows: Sequence[Row]) -> list[str]:
    """For every detector with a log: its task losses, and its distillation terms."""
    charts = []
    for row in rows:
        run = row.members[0].run
        lines = run.log.train if run.log is not None else []
        terms: dict[str, list[tuple[float, float]]] = {}
        for line in lines:
            for name, value in line.items():
                if 'loss' in name and name != 'loss' and isinstance(value, (int, float)) and value == value:
                    terms.setdefault(name, []).append((line['iter'], value))
        added = {name for name in terms if is_distillation(name)}
        own = [part for title, part in (('task', {n: v for n, v in terms.items() if n not in added}),
                                        ('distillation', {n: v for n, v in terms.items() if n in added}))
               if part for part in [curves(f'{row.name}: {title}', part)]]
        if own:
            charts.append(f'<h3>{escape(row.name)}</h3><div class="grid">{"".join(own)}</div>')
    return charts


def is_distillation(name: str) -> bool:
    """Whether a logged loss is a term that distillation adds, by the words in the names that the terms give themselves.
    """
    return not DISTILLATION_WORDS.isdisjoint(re.split(r'[._]', name))


