"""The page holds what was compared, loads nothing, and a real browser lays it out without overflow."""
import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from conftest import build
from methods import METHODS, Teachers
from mmengine.config import Config

from kd_det.compare import charts, report
from kd_det.compare.accuracy import FIGURES, Accuracy
from kd_det.compare.comparison import Comparison
from kd_det.compare.cost import Latency
from kd_det.compare.error_types import find_errors
from kd_det.compare.gallery import KINDS, make_gallery
from kd_det.compare.logs import RunLog
from kd_det.compare.rows import Member, Row
from kd_det.compare.runs import Run
from kd_det.compare.sample import Photo, Sample, truth_of


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
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|<script', html)  # no gallery, no script
    charts = dict(re.findall(r'<figcaption>(task|distillation)(.*?)</figcaption>', html)[-3:])
    assert 'loss_hint_neck' in charts['distillation'] and 'loss_rpn_distill_cls' in charts['distillation']
    assert 'loss_hint' not in charts['task'] and 'loss_cls' in charts['task']


def test_points_and_bars_lie_where_their_values_are():
    frame = charts.Frame([10, 20], [0, 50], 'x', 'y')
    low, high = frame.place(10, 0), frame.place(20, 50)
    assert low[0] < high[0] and low[1] > high[1]
    assert frame.place(15, 25) == pytest.approx(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2))
    widths = re.findall(r'<rect [^>]*width="([\d.]+)"', charts.bars(['red cell'], ['a', 'b'], [[43.], [20.]], 'AP'))
    assert [float(w) / 440 for w in widths] == pytest.approx([.43, .20], abs=1e-3)


def browser():
    found = shutil.which('chromium') or shutil.which('chromium-browser')
    if found is None:
        pytest.skip('no chromium here')
    return found


def opened(html, tmp_path, probe, width=1280):
    """The page's title after ``probe``, a piece of script, has run in it."""
    page = tmp_path / 'report.html'
    page.write_text(html.replace('</body>', f'<script>{probe}</script></body>'))
    done = subprocess.run([browser(), '--headless', '--no-sandbox', '--disable-gpu',
                           f'--user-data-dir={tmp_path}/profile', f'--window-size={width},900', '--dump-dom',
                           page.as_uri()], capture_output=True, text=True,
                          timeout=100)
    titles = re.findall('<title>(.*?)</title>', done.stdout)
    assert titles, done.stderr[-500:]
    return titles[0]


FITS = """document.title = document.documentElement.scrollWidth <= innerWidth ? "fits" :
          "too wide: " + document.documentElement.scrollWidth + " of " + innerWidth;"""


@pytest.mark.parametrize('width', [1280, 500])
def test_a_browser_lays_it_out(html, width, tmp_path):
    """Chromium opens it without network; the page is not wider than the window (tables scroll by themselves)."""
    assert opened(html, tmp_path, FITS, width) == 'fits'


# -- the gallery
# ----------------------------------------------------------------------------------------------------------
CLASSES = ('cell </script><b>', 'platelet')


def scene(folder):
    """Three images and two detectors. In image 0 the first finds what the second misses, in image 1 both find all, in
    image 2 there is no object and the second sees one.
    """
    photos = []
    for i in range(3):
        path = folder / f'{i}.png'
        cv2.imwrite(str(path), np.full((480, 640, 3), 90 + 30 * i, dtype=np.uint8))
        photos.append(Photo(i, str(path), 640, 480))
    things = [dict(id=1, image_id=0, category_id=0, bbox=[64, 64, 128, 128], area=128 * 128, iscrowd=0),
              dict(id=2, image_id=1, category_id=1, bbox=[100, 100, 200, 100], area=20000, iscrowd=0)]
    truth = truth_of(photos, things, CLASSES)

    def seen(*rows):
        return [dict(image_id=image, category_id=label, bbox=list(box), score=score)
                for image, label, box, score in rows]
    first = seen((0, 0, (64, 64, 128, 128), 0.9), (1, 1, (100, 100, 200, 100), 0.8))
    second = seen((0, 0, (64, 64, 128, 128), 0.2), (1, 1, (100, 100, 200, 100), 0.6), (2, 1, (10, 10, 50, 50), 0.7))
    return Sample(photos, truth, list(CLASSES), 30), [first, second]


@pytest.fixture
def shown(tmp_path):
    sample, detections = scene(tmp_path)
    return make_gallery(sample, ['one', 'two <i>'], detections, [find_errors(sample.truth, d) for d in detections], 3)


def test_images_on_which_detectors_disagree_come_first(tmp_path):
    sample, detections = scene(tmp_path)
    errors = [find_errors(sample.truth, one) for one in detections]
    found = make_gallery(sample, ['one', 'two'], detections, errors, 1)
    assert [image['name'] for image in found.images] == ['0.png'] and (found.count, found.total) == (3, 30)
    # at a threshold below both scores they agree, and the first image of the sample is as good as any
    assert [image['name'] for image in make_gallery(sample, ['one', 'two'], detections, errors, 2, 0.1).images] \
        == ['0.png', '1.png']


def test_boxes_are_in_pixels_of_the_scaled_image(shown):
    image = shown.images[0]
    assert (image['w'], image['h']) == (360, 270)
    box, label, found = image['objects'][0]
    assert box == [36, 36, 72, 72] and label == 0 and found == [0.9, 0.2]
    assert image['detections'][1] == [[[36, 36, 72, 72], 0, 0.2, KINDS.index('correct')]]
    assert shown.images[2]['detections'][1][0][3] == KINDS.index('background')
    assert len(image['src']) < 40_000
    packed = base64.b64decode(image['src'].split(',')[1])
    assert cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR).shape == (270, 360, 3)


def test_only_so_many_detections_are_in_the_page(tmp_path):
    sample, (first, _) = scene(tmp_path)
    many = first + [dict(image_id=0, category_id=0, bbox=[i, 300, 9, 9], score=0.04 + 0.001 * i) for i in range(90)]
    found = make_gallery(sample, ['one'], [many], [find_errors(sample.truth, many)], 1).images[0]['detections'][0]
    assert len(found) == 30 and found[0][2] == 0.9 and found[1][2] == pytest.approx(0.129)


@pytest.fixture
def with_gallery(shown):
    return report.page(Comparison([row('one', 40., 30.), row('two <i>', 43., 31.)], [], {}, shown))


def test_the_gallery_is_in_the_page_and_loads_nothing(with_gallery):
    HTMLParser().feed(with_gallery)
    without_data = re.sub(r'<script type="application/json".*?</script>', '', with_gallery)
    assert with_gallery.count('</script>') == 2  # a class's name does not end one
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|fetch\(|XMLHttp', without_data)
    assert 'http' not in without_data.replace('http://www.w3.org/2000/svg', '')
    assert 'Kinds of mistakes' in with_gallery and '25.0 (1)' in with_gallery  # one detection on background


CHOOSE = """const set = (id, value) => {
    const control = document.getElementById('gallery-' + id);
    control.value = value;
    control.dispatchEvent(new Event(id === 'score' ? 'input' : 'change')); };
    const names = () => [...document.querySelectorAll('.photo h3')].map((h) => h.textContent[0]).join('');
    const texts = () => [...document.querySelectorAll('.photo figcaption')].map((c) => c.textContent.split(': ')[1]);
    const told = [];"""


def test_the_filters_filter_in_a_browser(with_gallery, tmp_path):
    """By class, by who missed what, by kind of mistake, and by the score from which a detection counts."""
    title = opened(with_gallery, tmp_path, CHOOSE + """
        told.push(names());                                   // all three
        set('missed', '1'); told.push(names());               // the second misses image 0's object at 0.3
        set('found', '0'); told.push(names());                // which the first finds
        set('missed', '0'); set('found', '1'); told.push(names() || '-');  // nothing the other way round
        set('missed', ''); set('found', ''); set('class', '1'); told.push(names());  // images with platelets
        set('kind', '5'); told.push(names());                 // with a detection on background
        set('class', ''); set('kind', ''); set('score', '0.75'); set('missed', '1'); told.push(names());
        set('missed', ''); set('score', '0.1'); told.push(texts().slice(0, 3).join(','));
        document.title = told.join(' ');""")
    assert KINDS[5] == 'background'
    assert title == '012 0 0 - 12 2 01 1 object,1 found, 0 missed,1 found, 0 missed'


@pytest.mark.parametrize('width', [1280, 500])
def test_the_gallery_fits_into_the_window(with_gallery, width, tmp_path):
    assert opened(with_gallery, tmp_path, FITS, width) == 'fits'


@pytest.mark.parametrize('method', METHODS)
def test_every_methods_terms_stand_apart_from_the_tasks(method, tmp_path):
    """A term taken for a task loss would hide what distillation does."""
    model = build(METHODS[method](Teachers(tmp_path)))
    assert [name for name in model.distill_terms if not report.is_distillation(name)] == []
    assert not any(map(report.is_distillation, (
        'loss_cls', 'loss_bbox', 'loss_dfl', 'loss_centerness', 'loss_iou', 'loss_obj', 'loss_rpn_cls', 's0.loss_bbox',
        'loss_mask', 'd0.dn_loss_cls', 'enc_loss_iou')))
