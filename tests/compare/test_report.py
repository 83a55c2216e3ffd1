"""The page holds what was compared, loads nothing, and a real browser lays it out without overflow."""
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from mmengine.config import Config

from kd_det.compare import report
from kd_det.compare.accuracy import FIGURES, Accuracy
from kd_det.compare.comparison import Comparison
from kd_det.compare.cost import Latency
from kd_det.compare.logs import RunLog
from kd_det.compare.rows import Member, Row
from kd_det.compare.runs import Run


def row(name, ap, ms, terms=()):
    accuracy = Accuracy(dict.fromkeys(FIGURES, ap), {'red cell': ap + 3, 'platelet <small>': ap - 5})
    log = RunLog([{'iter': i, 'loss': 3 / i, 'loss_cls': 2 / i, 'loss_bbox': 1 / i, **dict.fromkeys(terms, .5 / i)}
                  for i in range(1, 30)])
    return Row(name, [Member(Run(name, name, Config(), 'x.pth', log), 0, name, accuracy, 'e', 1., 1.)], 1000, 2e9,
               latency=Latency([ms]))


@pytest.fixture
def html():
    rows = [row('faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120', 40.2, 30.), row('distilled & <b>bold</b>', 43.1, 31.,
            ['loss_hint_neck', 'loss_rpn_distill_cls']), row('teacher', 55.5, 120.)]
    return report.page(Comparison(rows, ['AP (%) on e'], {'torch': '2'}))


def test_what_it_says(html):
    """Names are escaped, figures there, task and distillation apart, nothing is loaded from elsewhere."""
    HTMLParser().feed(html)
    assert 'distilled &amp; &lt;b&gt;bold&lt;/b&gt;' in html and '<b>' not in html
    assert all(figure in html for figure in ('40.2', '+2.9', '55.5', 'AP (%) on e'))
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|<script', html)
    charts = dict(re.findall(r'<figcaption>(task|distillation)(.*?)</figcaption>', html)[-3:])
    assert 'loss_hint_neck' in charts['distillation'] and 'loss_rpn_distill_cls' in charts['distillation']
    assert 'loss_hint' not in charts['task'] and 'loss_cls' in charts['task']


def test_points_and_bars_lie_where_their_values_are():
    frame = report._Frame([10, 20], [0, 50], 'x', 'y')
    low, high = frame.place(10, 0), frame.place(20, 50)
    assert low[0] < high[0] and low[1] > high[1]
    assert frame.place(15, 25) == pytest.approx(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2))
    widths = re.findall(r'<rect [^>]*width="([\d.]+)"', report.bars(['red cell'], [row('a', 40., 1.), row('b', 17., 1.)]))
    assert [float(w) / 440 for w in widths] == pytest.approx([.43, .20], abs=1e-3)


@pytest.mark.parametrize('width', [1280, 500])
def test_a_browser_lays_it_out(html, width, tmp_path):
    """Chromium opens it without network; the page is not wider than the window (tables scroll by themselves)."""
    browser = shutil.which('chromium') or shutil.which('chromium-browser')
    if browser is None:
        pytest.skip('no chromium here')
    probe = ('<script>document.title = document.documentElement.scrollWidth <= innerWidth ? "fits" : '
             '"too wide: " + document.documentElement.scrollWidth + " of " + innerWidth</script>')
    page = tmp_path / 'report.html'
    page.write_text(html.replace('</body>', probe + '</body>'))
    done = subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path}/profile',
                           f'--window-size={width},900', '--dump-dom', page.as_uri()], capture_output=True, text=True,
                          timeout=100)
    assert '<title>fits</title>' in done.stdout, re.findall('<title>.*?</title>', done.stdout) or done.stderr[-500:]
