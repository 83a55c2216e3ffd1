"""kd-det compare on runs of a tiny detector: table, JSON, pictures, and what it refuses."""
import json
import os
import re
import shutil

import pytest
import torch
from conftest import CLASSES
from tiny_runs import TIMESTAMP, config, make_place, tiny_cfg, write_config, write_run

from kd_det.cli import compare as cli
from kd_det.cli.command import REFUSED, call

TOOL = os.path.join(os.path.dirname(__file__), '..', '..', 'tools', 'compare.py')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp('compare'))


@pytest.fixture
def compare(capsys):
    """Run the tool in this process; returns what it printed."""
    def run(*args):
        call(cli, list(map(str, args)))
        return capsys.readouterr().out
    return run


FAST = ('--images', 2, '--repeat', 2, '--warmup', 0, '--device', 'cpu')


def test_seeds_fold_and_everything_is_written(place, tmp_path, compare):
    pytest.importorskip('matplotlib')
    root, weights = place
    runs = [write_run(tmp_path / 'teacher', config(root, 16), ap=.6, weights=weights[16])]
    runs += [write_run(tmp_path / f's{seed}', config(root), seed, ap, weights[8])
             for seed, ap in enumerate((.4, .44))]
    out = compare(*runs, *FAST, '--per-class', '--json', tmp_path / 'o.json', '--plot',
                  tmp_path / 'p.png', '--curves', tmp_path / 'c.png')
    assert max(map(len, out.split('\n'))) <= 120
    assert '42.0 ± 2.8' in out  # sample sd of 40 and 44
    assert f'AP (%) on {root}dev.json' in ' '.join(out.split())
    teacher, student = json.loads((tmp_path / 'o.json').read_text())['rows']
    assert (student['n'], student['ap_difference']) == (2, pytest.approx(-18.))
    assert teacher['parameters'] > student['parameters']
    assert teacher['multiply_adds'] > student['multiply_adds']
    assert student['input_sizes'] == [[64, 64]]  # padded to multiples of 32
    assert len(student['latency']['times_ms']) == 2
    for name in ('p.png', 'c.png'):
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')


def test_the_page_shows_what_every_detector_finds(place, tmp_path, compare):
    root, weights = place
    runs = [write_run(tmp_path / name, config(root, width), ap=.4, weights=weights[width])
            for name, width in (('small', 8), ('large', 16))]
    compare(*runs, *FAST, '--no-latency', '--html', tmp_path / 'r.html', '--gallery', 2, '--gallery-from', 3)
    page = (tmp_path / 'r.html').read_text()
    data = json.loads(re.search('id="gallery-data">(.*?)</script>', page).group(1))
    assert data['names'] == ['small', 'large'] and data['classes'] == list(CLASSES)
    assert len(data['images']) == 2 and all(len(image['detections']) == 2 for image in data['images'])
    assert all(image['objects'][0][0] == [5, 5, 20, 20] for image in data['images'])  # 64x48: not scaled
    assert '3 images of 4' in page and len(page) < 100_000
    compare(*runs, *FAST, '--no-latency', '--html', tmp_path / 'n.html', '--gallery', 0)
    assert 'gallery-data' not in (tmp_path / 'n.html').read_text()
    shutil.copytree(root, tmp_path / 'moved')
    for path in (tmp_path / 'moved').glob('*.png'):
        path.unlink()
    out = compare(*runs, *FAST, '--no-latency', '--html', tmp_path / 'n.html', '--data-root', tmp_path / 'moved')
    assert 'no gallery and no types of errors: the test set was not found' in ' '.join(out.split())


def test_a_distilled_run_is_measured_as_its_plain_student(place, tmp_path, compare):
    root, weights = place
    distilled = config(root, type='FasterRCNNDistiller', teacher={
        'config': tiny_cfg(width=16), 'checkpoint': str(tmp_path / 'gone.pth')})
    runs = [write_run(tmp_path / 'plain', config(root), ap=.4, weights=weights[8]),
            write_run(tmp_path / 'distilled', distilled, ap=.45, weights=weights[8])]
    # evaluating by hand leaves the plain config in place of the distillation config
    write_config(config(root), tmp_path / 'distilled' / 'tiny.py')
    plain, student = json.loads(compare(*runs, '--no-latency', '--images', 1, '--json', '-'))[
        'rows']
    assert [plain['name'], student['name']] == ['plain', 'distilled']  # not two seeds of one config
    assert student['parameters'] == plain['parameters']
    assert student['multiply_adds'] == plain['multiply_adds']
    assert student['latency'] is None


def test_evaluation_where_nothing_is_recorded(place, tmp_path, compare):
    root, weights = place
    run = write_run(tmp_path / 'a', config(root), weights=weights[8])
    with pytest.raises(REFUSED, match=r'has recorded no AP.*--eval'):
        compare(run, '--no-latency')
    before = sorted(path for path, _, _ in os.walk(tmp_path))
    rows = json.loads(compare(run, f'{run}/tiny.py:{run}/epoch_2.pth', '--no-latency', '--images',
                              1, '--eval', '--no-fold', '--json', '-'))['rows']
    assert rows[0]['accuracy'] == rows[1]['accuracy']
    assert 0 <= rows[0]['accuracy']['AP']['mean'] <= 100
    assert set(rows[0]['per_class']) == set(CLASSES)
    assert rows[0]['runs'][0]['evaluated_on'] == f'{root}eval.json'
    assert sorted(path for path, _, _ in os.walk(tmp_path)) == before  # nothing left beside the run


def test_a_pair_needs_no_ap_and_no_data(place, tmp_path, compare):
    _, weights = place
    run = write_run(tmp_path / 'a', config('nowhere/'), weights=weights[8])
    out = ' '.join(compare(f'{run}/tiny.py:{run}/epoch_2.pth', *FAST).split())
    assert 'not evaluated: tiny; add --eval' in out
    assert 'images of random noise' in out
    assert '64x64' in out


def test_figures_of_different_data_sets_are_marked(place, tmp_path, compare):
    root, weights = place
    runs = [write_run(tmp_path / name, config(root), seed, .4, weights[8])
            for seed, name in enumerate('ab')]
    (tmp_path / 'b' / TIMESTAMP / f'{TIMESTAMP}.json').write_text('{"coco/bbox_mAP": 0.5}')
    out = compare(*runs, '--no-latency', '--images', 1)
    assert 'WARNING: AP (%) is of different data sets' in out
    out = compare(*runs, '--no-latency', '--images', 1, '--split', 'val')
    assert '40.0 ± 0.0' in out
    assert 'WARNING' not in out


def test_an_outdated_ap_is_marked(place, tmp_path, compare):
    root, weights = place
    run = write_run(tmp_path / 'a', config(root), ap=.4, weights=weights[8])
    torch.save({'state_dict': weights[8], 'meta': {'epoch': 7}}, tmp_path / 'a' / 'epoch_2.pth')
    assert 'recorded AP is of epoch 2, the checkpoint of epoch 7' in compare(
        run, '--no-latency', '--images', 1)


def test_a_checkpoint_of_another_architecture(place, tmp_path, compare):
    root, weights = place
    state = dict(weights[8])
    state['extra.weight'] = state.pop('roi_head.bbox_head.fc_cls.weight')
    state['backbone.conv1.weight'] = weights[16]['backbone.conv1.weight']
    run = write_run(tmp_path / 'a', config(root), ap=.4, weights=state)
    with pytest.raises(REFUSED) as error:
        compare(run)
    for key in ('extra.weight', 'roi_head.bbox_head.fc_cls.weight', 'backbone.conv1.weight'):
        assert key in str(error.value)


class Evil:
    def __reduce__(self):
        return os.mkdir, ('evil',)


def test_a_malicious_checkpoint_is_refused(place, tmp_path, compare, monkeypatch):
    root, _ = place
    run = write_run(tmp_path / 'a', config(root), ap=.4, weights=Evil())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(REFUSED, match='Refused to load'):
        compare(run)
    assert not os.path.exists('evil')


@pytest.mark.parametrize('damage, message', [
    (lambda d: (d / 'tiny.py').unlink(), "exactly one config .* found none"),
    (lambda d: shutil.copy(d / 'tiny.py', d / 'b.py'), r"found \['b.py', 'tiny.py'\]"),
    (lambda d: (d / 'epoch_2.pth').unlink(), "names '/moved/away/epoch_2.pth', which does not"),
    (lambda d: [(d / n).unlink() for n in ('epoch_2.pth', 'last_checkpoint')],
     'holds no checkpoint'),
    (lambda d: (d / TIMESTAMP / 'vis_data' / f'{TIMESTAMP}.json').write_text('{]\n{}\n'),
     'line 1: expected a JSON object'),
])
def test_a_damaged_run_is_a_clear_error(place, tmp_path, compare, damage, message):
    root, weights = place
    run = write_run(tmp_path / 'a', config(root), ap=.4, weights=weights[8])
    damage(tmp_path / 'a')
    with pytest.raises(REFUSED, match=message):
        compare(run)


@pytest.mark.parametrize('args, message', [
    (['nowhere'], 'neither a work directory'),
    (['a.py:nowhere.pth'], "checkpoint 'nowhere.pth' does not exist"),
    ([TOOL, '--device', 'abacus'], '--device'),
    ([TOOL, '--gallery', '-1'], '--gallery -1: at least 0'),
    ([TOOL, '--gallery-from', '0'], '--gallery-from 0: at least 1'),
])
def test_wrong_arguments(compare, args, message):
    with pytest.raises(REFUSED, match=message):
        compare(*args)
