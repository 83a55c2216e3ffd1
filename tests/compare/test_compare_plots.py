"""Pictures: every name readable, curves at the right place, clear refusals."""
import itertools

import pytest
from mmengine.config import Config

from kd_det.compare import plots
from kd_det.compare.accuracy import FIGURES, Accuracy
from kd_det.compare.cost import Latency
from kd_det.compare.logs import Record, RunLog
from kd_det.compare.rows import Member, Row
from kd_det.compare.runs import Run
from kd_det.errors import CompareError

pytest.importorskip('matplotlib')


def row(name, ap, ms=None, log=None):
    accuracy = None if ap is None else Accuracy(dict.fromkeys(FIGURES, ap), {})
    members = [Member(Run(name, name, Config(), 'x.pth', log), 0, name, accuracy, 'e', 1., 1.)]
    return Row(name, members, 1000, 2e9, latency=None if ms is None else Latency([ms]))


@pytest.fixture
def figure(monkeypatch):
    """The matplotlib figure that was made last."""
    made, make = [], plots._figure
    monkeypatch.setattr(plots, '_figure', lambda *size: made.append(make(*size)) or made[-1])
    return lambda: made[-1]


def test_six_close_points_have_labels_that_do_not_overlap(tmp_path, figure):
    from matplotlib.text import Text
    rows = [row('faster-rcnn_r18_fpn-c64_8e_bccd-320x240', 56.5, 110.)] + [
        row(f'faster-rcnn_r18-w16_{i}_bccd', 46 + i / 3, 50. + i / 5) for i in range(5)]
    plots.plot_cost(rows, str(tmp_path / 'cost.png'))
    assert (tmp_path / 'cost.png').read_bytes().startswith(b'\x89PNG')
    axes = figure().axes[0]
    renderer = figure().canvas.get_renderer()
    assert [t.get_text().replace('\n', '') for t in axes.texts] == [r.name for r in rows]
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    dots = [axes.transData.transform((r.latency.median, r.figure('AP').mean)) for r in rows]
    assert not any(box.contains(*dot) for box in boxes for dot in dots)
    assert '(ms)' in axes.get_xlabel()


def test_without_latency_the_axis_is_gflops(tmp_path, figure):
    plots.plot_cost([row('a', 50.), row('b', 51.)], str(tmp_path / 'cost.png'))
    assert figure().axes[0].get_xlabel().startswith('GFLOPs')
    assert figure().axes[0].lines[0].get_xdata()[0] == 2.


def test_a_row_without_ap_cannot_be_plotted(tmp_path):
    with pytest.raises(CompareError, match="'b' has no AP; add --eval"):
        plots.plot_cost([row('a', 50.), row('b', None)], str(tmp_path / 'cost.png'))


def log(by_epoch):
    train = [{'loss': 9. / i, 'iter': i, **({'epoch': -(-i // 4)} if by_epoch else {})}
             for i in (2, 4, 6, 8)]
    ap = Accuracy(dict.fromkeys(FIGURES, 30.), {})
    return RunLog(train, [Record('val', ap, epoch=2 if by_epoch else None, iter=8),
                          Record('test', ap)])


def test_curves_count_epochs_if_all_runs_do(tmp_path, figure):
    plots.plot_curves([row('a', 50., log=log(True)), row('pair', 50.)], str(tmp_path / 'c.png'))
    loss, ap = figure().axes
    assert list(loss.lines[0].get_xdata()) == [0.5, 1., 1.5, 2.]
    assert (list(ap.lines[0].get_xdata()), list(ap.lines[0].get_ydata())) == ([2], [30.])
    assert len(ap.lines) == 1  # the test on other data is no point of the curve
    plots.plot_curves([row('a', 50., log=log(True)), row('b', 50., log=log(False))],
                      str(tmp_path / 'c.png'))
    loss, ap = figure().axes
    assert [list(line.get_xdata()) for line in loss.lines] == [[2, 4, 6, 8]] * 2
    assert [list(line.get_xdata()) for line in ap.lines] == [[8]] * 2
    assert loss.get_xlabel() == 'iteration'


def test_curves_need_a_log(tmp_path):
    with pytest.raises(CompareError, match='no training log'):
        plots.plot_curves([row('pair', 50.)], str(tmp_path / 'c.png'))
