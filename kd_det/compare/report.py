"""The comparison as one HTML page: tables and inline SVG charts; no script, no server, no network."""
import math
from collections.abc import Sequence
from html import escape

from .comparison import Comparison
from .rows import Row
from .table import Column, class_columns, class_names, main_columns

COLORS = ('#0072B2', '#D55E00', '#009E73', '#AA4499', '#56B4E9', '#B07000', '#000000')
"""Okabe and Ito's colours, darkened where they are faint on white."""
_LEFT, _TOP, _WIDTH, _HEIGHT = 76, 12, 620, 300

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
ul.legend li { overflow-wrap: anywhere; } .key { display: inline-block; width: .9rem; height: .9rem; margin-right: .4rem;
       vertical-align: -.1rem; border-radius: 2px; }
.notes { color: #444; font-size: .9rem; }
'''


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
        parts += ['<h2>AP by class</h2>', bars(classes, rows), table('class', *class_columns(rows))]
    if curves := loss_charts(rows):
        parts += ['<h2>Losses over training</h2>',
                  '<p>Task losses are the student\'s own; distillation terms are what distillation adds. The first seed of '
                  'each detector.</p>', *curves]
    notes = ''.join(f'<li>{escape(note)}</li>' for note in result.notes)
    facts = ''.join(f'<li>{escape(str(key))}: {escape(str(value))}</li>' for key, value in result.environment.items())
    parts += ['<h2>Conditions</h2>', f'<ul class="notes">{notes}{facts}</ul>']
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Comparison of detectors</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f'<style>{STYLE}</style></head>\n<body><main>\n' + '\n'.join(parts) + '\n</main></body></html>\n')


def legend(names: Sequence[str]) -> str:
    items = ''.join(f'<li><span class="key" style="background:{_color(i)}"></span>{escape(name)}</li>'
                    for i, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def table(title: str, names: Sequence[str], columns: Sequence[Column]) -> str:
    """Scrolls sideways by itself, by keyboard too, where the screen is narrower."""
    units = [f'<br><span class="unit">{escape(c.unit)}</span>' if c.unit else '' for c in columns]
    head = ''.join(f'<th scope="col">{escape(c.head)}{unit}</th>' for c, unit in zip(columns, units))
    lines = ''.join(f'<tr><th scope="row">{escape(name)}</th>'
                    + ''.join(f'<td>{escape(c.cells[i])}</td>' for c in columns) + '</tr>' for i, name in enumerate(names))
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


def scatter(points: Sequence[tuple[int, float, float, float]], names: Sequence[str], what: str) -> str:
    """AP, with one standard deviation over the seeds as a bar, against cost."""
    frame = _Frame([p[1] for p in points], [p[2] + s * p[3] for p in points for s in (-1, 1)], what,
                   'AP, IoU 0.50:0.95 (%)')
    marks = []
    for i, cost, ap, sd in points:
        x, y = frame.place(cost, ap)
        marks.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{frame.place(cost, ap - sd)[1]:.1f}" '
                     f'y2="{frame.place(cost, ap + sd)[1]:.1f}" stroke="{_color(i)}" stroke-width="2"/>'
                     f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{_color(i)}"><title>{escape(names[i])}: AP {ap:.1f}, '
                     f'{cost:.3g}</title></circle>')
    return frame.svg(marks, 'AP against cost')


def bars(classes: Sequence[str], rows: Sequence[Row]) -> str:
    """A group of horizontal bars for every class, one bar a detector."""
    height, space = 22, 14
    group = height * len(rows) + space
    marks = []
    for k, name in enumerate(classes):
        top = k * group + 4
        middle = top + height * len(rows) / 2 + 4
        marks.append(f'<text x="206" y="{middle}" text-anchor="end">{escape(_short(name))}</text>')
        for i, row in enumerate(rows):
            ap = row.class_ap(name)
            if ap is not None:
                long, y = ap.mean / 100 * 440, top + i * height
                marks.append(f'<rect x="214" y="{y}" width="{long:.1f}" height="{height - 2}" fill="{_color(i)}"><title>'
                             f'{escape(row.name)}, {escape(name)}: {ap.mean:.1f}</title></rect>'
                             f'<text x="{219 + long:.1f}" y="{y + 16}">{ap.mean:.1f}</text>')
    return f'<svg viewBox="0 0 720 {group * len(classes)}" role="img" aria-label="AP by class (%)">{"".join(marks)}</svg>'


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + '…'


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
               if part for part in [_curves(f'{row.name}: {title}', part)]]
        if own:
            charts.append(f'<h3>{escape(row.name)}</h3><div class="grid">{"".join(own)}</div>')
    return charts


def is_distillation(name: str) -> bool:
    """Whether a logged loss is a term that distillation adds, by the names that the terms give themselves."""
    return any(part in name for part in ('hint', 'distill', 'soft', 'teacher', 'kd', 'peer', 'cross', 'unlabelled'))


def _curves(title: str, terms: dict[str, list[tuple[float, float]]]) -> str:
    values = [value for line in terms.values() for _, value in line]
    frame = _Frame([0.0, *(x for line in terms.values() for x, _ in line)], [0.0, *values], 'iteration', 'loss')
    marks = []
    for i, line in enumerate(terms.values()):
        path = ' '.join('{:.1f},{:.1f}'.format(*frame.place(x, y)) for x, y in line)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{_color(i)}" stroke-width="1.8"/>')
    kind = title.rsplit(': ', 1)[-1]
    return (f'<figure style="margin:0"><figcaption>{kind}{legend(list(terms))}</figcaption>{frame.svg(marks, title)}'
            '</figure>')


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


class _Frame:
    """Axes with round ticks around the data."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], x_label: str, y_label: str) -> None:
        self.x, self.y = _range(xs), _range(ys)
        self.labels = x_label, y_label

    def place(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        return _LEFT + (x - x0) / (x1 - x0) * _WIDTH, _TOP + (y1 - y) / (y1 - y0) * _HEIGHT

    def svg(self, marks: Sequence[str], label: str) -> str:
        bottom = _TOP + _HEIGHT
        lines = []
        for y in ticks(*self.y):
            py = self.place(self.x[0], y)[1]
            lines.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{py:.1f}" y2="{py:.1f}" stroke="#ddd"/>'
                         f'<text x="{_LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>')
        for x in ticks(*self.x):
            lines.append(f'<text x="{self.place(x, self.y[0])[0]:.1f}" y="{bottom + 20}" text-anchor="middle">{x:g}</text>')
        lines.append(f'<text x="{_LEFT + _WIDTH / 2}" y="{bottom + 44}" text-anchor="middle">'
                     f'{escape(self.labels[0])}</text>'
                     f'<text transform="translate(14,{_TOP + _HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
                     f'{escape(self.labels[1])}</text>')
        return (f'<svg viewBox="0 0 {_LEFT + _WIDTH + 24} {bottom + 54}" role="img" aria-label="{escape(label)}">'
                + ''.join([*lines, *marks]) + '</svg>')


def ticks(low: float, high: float) -> list[float]:
    """Three to seven multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    raw = (high - low) / 6
    power = 10.0**math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (low if low == 0 else low - room), high + room
