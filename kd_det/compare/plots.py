"""Two pictures: AP against cost, and training curves. PNG through matplotlib's Agg backend."""
import os.path as osp
import textwrap
from collections.abc import Sequence

from ..errors import CompareError
from ..files import write_whole
from .rows import Row, Spread

# Okabe and Ito's colours, which people with any colour vision can tell apart; yellow is too faint.
_COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
_LABEL_WIDTH = 28
# where a label may stand around its point, in points (1/72 inch), nearest first
_OFFSETS = [(sx * r, sy * q) for r, q in ((9, 7), (14, 20), (24, 34), (40, 52), (60, 72))
            for sx, sy in ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))]


def _color(i: int) -> str:
    return _COLORS[i % len(_COLORS)]


def _figure(width: float, height: float):
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CompareError(f'pictures need matplotlib ({error}): pip install matplotlib') from error
    figure = Figure(figsize=(width, height), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def _tidy(axes) -> None:
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)


def plot_cost(rows: Sequence[Row], path: str) -> None:
    """Scatter of AP (up is better) against median latency, or GFLOPs where none was measured.

    Bars are +- one sample standard deviation over seeds.

    Raises:
        CompareError: a row has no AP or no cost.
    """
    timed = all(row.latency is not None for row in rows)
    points = []
    for row in rows:
        cost = row.latency.median if timed else row.multiply_adds and row.multiply_adds / 1e9
        if row.figure('AP') is None or cost is None:
            raise CompareError(f'--plot: {row.name!r} has no '
                               f'{"AP; add --eval" if cost is not None else "measured cost"}')
        points.append((cost, row.figure('AP')))
    figure = _figure(6.4, 4.4)
    axes = figure.add_subplot()
    for i, (cost, ap) in enumerate(points):
        axes.errorbar(cost, ap.mean, yerr=ap.sd, fmt='o', markersize=7, capsize=3,
                      color=_color(i))
    costs = [cost for cost, _ in points]
    if max(costs) > 8 * min(costs):
        axes.set_xscale('log')
    axes.margins(0.25)
    axes.set_xlabel('median latency per image (ms)' if timed
                    else 'GFLOPs per image (one multiply-add = 1)')
    axes.set_ylabel('AP, IoU 0.50:0.95 (%)')
    _tidy(axes)
    _label_points(figure, axes, points, [row.name for row in rows])
    _save(figure, path)


def _label_points(figure, axes, points: Sequence[tuple[float, Spread]],
                  names: Sequence[str]) -> None:
    """Write each name at the first place where it covers no point, bar, other name or edge."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    def extent(label) -> Bbox:
        label.update_positions(renderer)
        return Text.get_window_extent(label, renderer).padded(4)  # without the line to the point

    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    ends = [[axes.transData.transform((cost, ap.mean + side * (ap.sd or 0.))) for side in (-1, 1)]
            for cost, ap in points]
    taken = [Bbox.from_extents(x - 9, low - 9, x + 9, high + 9) for (x, low), (_, high) in ends]
    frame = axes.get_window_extent(renderer)
    for i, ((cost, ap), name) in enumerate(zip(points, names)):
        label = axes.annotate(
            '\n'.join(textwrap.wrap(name.replace('_', '_ '), _LABEL_WIDTH)).replace('_ ', '_'),
            (cost, ap.mean), xytext=_OFFSETS[0], textcoords='offset points', fontsize=8,
            color=_color(i),
            arrowprops={'arrowstyle': '-', 'color': _color(i), 'linewidth': 0.6, 'shrinkB': 4,
                        'shrinkA': 0})
        best = None
        for dx, dy in _OFFSETS:
            label.set_position((dx, dy))
            label.set_ha('left' if dx > 0 else 'right' if dx < 0 else 'center')
            label.set_va('bottom' if dy > 0 else 'top')
            box = extent(label)
            faults = sum(box.overlaps(other) for other in taken)
            faults += not (frame.x0 <= box.x0 and box.x1 <= frame.x1
                           and frame.y0 <= box.y0 and box.y1 <= frame.y1)
            if best is None or faults < best[0]:
                best = (faults, label.get_position(), label.get_ha(), label.get_va())
            if faults == 0:
                break
        label.set_position(best[1])
        label.set_ha(best[2])
        label.set_va(best[3])
        taken.append(extent(label))


def _save(figure, path: str) -> None:
    write_whole(path, lambda file: figure.savefig(file, format=osp.splitext(path)[1].removeprefix('.') or None))


def plot_curves(rows: Sequence[Row], path: str) -> None:
    """Training loss and AP on the validation set over the training, one line a run.

    The axis counts epochs if all runs do, otherwise iterations. Seeds of one row share a colour.

    Raises:
        CompareError: no run has a training log.
    """
    runs = [(i, member.run) for i, row in enumerate(rows) for member in row.members
            if member.run.log is not None and member.run.log.train]
    if not runs:
        raise CompareError('--curves: no training log; CONFIG:CHECKPOINT has none, name the work '
                           'directory instead')
    in_epochs = all(run.log.iters_per_epoch() for _, run in runs)
    figure = _figure(9.6, 3.6 + 0.2 * len(rows))
    loss_axes, ap_axes = figure.subplots(1, 2)
    handles = {}
    for i, run in runs:
        length = run.log.iters_per_epoch() if in_epochs else 1
        line, = loss_axes.plot([entry['iter'] / length for entry in run.log.train],
                               [entry['loss'] for entry in run.log.train],
                               color=_color(i), linewidth=1.3)
        handles.setdefault(rows[i].name, line)
        marks = [(record.epoch if in_epochs and record.epoch is not None
                  else record.iter / length, record.accuracy.figures['AP'])
                 for record in run.log.records
                 if record.split == 'val' and record.iter is not None
                 and record.accuracy.figures['AP'] is not None]
        if marks:
            ap_axes.plot(*zip(*marks), 'o-', color=_color(i), linewidth=1.3, markersize=3.5,
                         alpha=0.8)
    if not ap_axes.lines:
        ap_axes.text(0.5, 0.5, 'no validation recorded', transform=ap_axes.transAxes, ha='center')
    for axes, what in ((loss_axes, 'training loss (sum of all terms)'),
                       (ap_axes, 'validation AP, IoU 0.50:0.95 (%)')):
        axes.set_xlabel('epoch' if in_epochs else 'iteration')
        axes.set_ylabel(what)
        axes.set_xlim(left=0)
        _tidy(axes)
    ap_axes.set_xlim(loss_axes.get_xlim())
    figure.legend(list(handles.values()), list(handles), loc='outside lower center', fontsize=8,
                  ncols=1 if max(map(len, handles)) > 40 else 2, frameon=False)
    _save(figure, path)
