"""The report's pictures: inline SVG, with the values as texts and titles in it."""
import math
from collections.abc import Sequence
from html import escape

COLORS = ('#0072B2', '#D55E00', '#009E73', '#AA4499', '#56B4E9', '#B07000', '#000000')
"""Okabe and Ito's colours, darkened where they are faint on white."""
_LEFT, _TOP, _WIDTH, _HEIGHT = 76, 12, 620, 300


def legend(names: Sequence[str]) -> str:
    items = ''.join(f'<li><span class="key" style="background:{color(i)}"></span>{escape(name)}</li>'
                    for i, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def scatter(points: Sequence[tuple[int, float, float, float]], names: Sequence[str], what: str) -> str:
    """AP, with one standard deviation over the seeds as a bar, against cost."""
    frame = Frame([p[1] for p in points], [p[2] + s * p[3] for p in points for s in (-1, 1)], what,
                   'AP, IoU 0.50:0.95 (%)')
    marks = []
    for i, cost, ap, sd in points:
        x, y = frame.place(cost, ap)
        marks.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{frame.place(cost, ap - sd)[1]:.1f}" '
                     f'y2="{frame.place(cost, ap + sd)[1]:.1f}" stroke="{color(i)}" stroke-width="2"/>'
                     f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{color(i)}"><title>{escape(names[i])}: AP '
                     f'{ap:.1f}, {cost:.3g}</title></circle>')
    return frame.svg(marks, 'AP against cost')


def bars(groups: Sequence[str], names: Sequence[str], values: Sequence[Sequence[float | None]], what: str,
         full: float = 100.0) -> str:
    """A group of horizontal bars for every class (or error type), one bar a detector.

    Args:
        groups: what the groups are called.
        names: of the detectors.
        values: by detector and group, at least 0; None: nothing to draw.
        what: they are of, for those who hear the page.
        full: the value of the longest bar that there is room for.
    """
    height, space = 22, 14
    group = height * len(names) + space
    marks = []
    for k, name in enumerate(groups):
        top = k * group + 4
        middle = top + height * len(names) / 2 + 4
        marks.append(f'<text x="206" y="{middle}" text-anchor="end">{escape(_short(name))}</text>')
        for i, of_one in enumerate(values):
            if of_one[k] is not None:
                long, y = max(of_one[k], 0) / full * 440, top + i * height
                marks.append(f'<rect x="214" y="{y}" width="{long:.1f}" height="{height - 2}" fill="{color(i)}"><title>'
                             f'{escape(names[i])}, {escape(name)}: {of_one[k]:.1f}</title></rect>'
                             f'<text x="{219 + long:.1f}" y="{y + 16}">{of_one[k]:.1f}</text>')
    return f'<svg viewBox="0 0 720 {group * len(groups)}" role="img" aria-label="{escape(what)}">{"".join(marks)}</svg>'


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + '…'


def curves(title: str, terms: dict[str, list[tuple[float, float]]]) -> str:
    values = [value for line in terms.values() for _, value in line]
    frame = Frame([0.0, *(x for line in terms.values() for x, _ in line)], [0.0, *values], 'iteration', 'loss')
    marks = []
    for i, line in enumerate(terms.values()):
        path = ' '.join('{:.1f},{:.1f}'.format(*frame.place(x, y)) for x, y in line)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{color(i)}" stroke-width="1.8"/>')
    kind = title.rsplit(': ', 1)[-1]
    return (f'<figure style="margin:0"><figcaption>{kind}{legend(list(terms))}</figcaption>{frame.svg(marks, title)}'
            '</figure>')


def color(i: int) -> str:
    return COLORS[i % len(COLORS)]


class Frame:
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
            lines.append(f'<text x="{self.place(x, self.y[0])[0]:.1f}" y="{bottom + 20}" '
                         f'text-anchor="middle">{x:g}</text>')
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
