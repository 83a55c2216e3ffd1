"""Pictures of runs as the command makes them: which files there are, what is said, what is refused."""
import copy
import os
import re

import pytest
import torch
from conftest import CLASSES, build, faster_rcnn_cfg, save_checkpoint
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict
from PIL import Image
from scenes import photo

from kd_det.cli import main as cli
from kd_det.compare.error_types import find_errors
from kd_det.compare.report_gallery import COLORS
from kd_det.visualize import detections


@pytest.fixture
def run(run_config, tmp_path):
    """Write a distil run's config, checkpoint and teacher; returns CONFIG:CHECKPOINT."""
    def write(student, teacher, kind='Distiller', kept=True, **options):
        path = save_checkpoint(build(copy.deepcopy(teacher), 7), tmp_path / 'teacher.pth')
        model = ConfigDict(copy.deepcopy(student))
        model.update(student_type=model.type, type=kind, **options,
                     teacher=dict(config=copy.deepcopy(teacher).to_dict(), checkpoint=path))
        network = build(model, 1)
        content = dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=network.state_dict())
        if kept:
            content['kd_det'] = network.distill_state()
        torch.save(content, tmp_path / 'run.pth')
        return f'{run_config(model, "distilled.py")}:{tmp_path / "run.pth"}'
    return write


def names(folder):
    return sorted(os.listdir(folder))


def test_two_stage_run(run, tmp_path, capsys):
    """Detections and errors of teacher and student, hints; for anchors a reason."""
    spec = run(faster_rcnn_cfg(), faster_rcnn_cfg(width=16), terms=[dict(type='Hint', layer='neck')])
    out = tmp_path / 'pictures'
    assert cli.main(['visualize', spec, '--out', str(out), '--number', '2', '--side', '96', '--score', '0.01']) == 0
    said = capsys.readouterr().out
    assert names(out) == ['detections_000.png', 'detections_001.png', 'errors_000.png', 'errors_001.png',
                          'hints_000.png', 'hints_001.png']
    assert 'no anchors of distilled: FasterRCNN has no dense head' in said
    assert said.count(' correct, ') == 2 and 'teacher: ' in said
    assert Image.open(out / 'detections_000.png').width >= 3 * 96  # ground truth, teacher, student
    before = {name: (out / name).read_bytes() for name in names(out)}
    assert cli.main(['visualize', spec, '--out', str(out)]) == 2
    assert 'holds pictures already' in capsys.readouterr().err
    assert before == {name: (out / name).read_bytes() for name in names(out)}
    assert cli.main(['visualize', spec, '--out', str(out), '--number', '1', '--side', '96', '--overwrite',
                     '--no-teacher', '--show', 'detections']) == 0
    assert Image.open(out / 'detections_000.png').width < 3 * 96


def test_dense_run(run, tmp_path, capsys):
    spec = run(dense_cfg('yolox'), dense_cfg('yolox', width=16), 'LADDistiller')
    assert cli.main(['visualize', spec, '--out', str(tmp_path / 'p'), '--number', '1', '--side', '96', '--show',
                     'anchors', 'hints']) == 0
    assert names(tmp_path / 'p') == ['anchors_000.png']
    assert 'no hints of distilled: none of its terms is a hint' in capsys.readouterr().out


@pytest.mark.parametrize('change, words', [
    ('teacher', '--no-teacher leaves teachers out'), ('adapters', 'no "kd_det" entry, so no adapters'),
    ('number', '--number 0: at least 1'), ('score', '--score 1.5: from 0 to 1'), ('side', '--side 8: at least 32'),
    ('file', 'no image \'nothing.png\''), ('names', '2 names for 1 runs'),
    ('data', '--data-root .*nowhere: there is no such folder'),
    ('nothing', 'nothing could be drawn: .*no dense head')])
def test_what_cannot_be_drawn_says_why(change, words, run, tmp_path, capsys):
    spec = run(faster_rcnn_cfg(), faster_rcnn_cfg(width=16), kept=change != 'adapters',
               terms=[dict(type='Hint', layer='neck')])
    if change == 'teacher':
        os.remove(tmp_path / 'teacher.pth')
    extra = dict(number=['--number', '0'], score=['--score', '1.5'], side=['--side', '8'],
                 file=['--files', 'nothing.png'], names=['--names', 'a', 'b'],
                 data=['--data-root', str(tmp_path / 'nowhere')], nothing=['--show', 'anchors']).get(change, [])
    assert cli.main(['visualize', spec, '--out', str(tmp_path / 'p'), *extra]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not os.path.isdir(tmp_path / 'p') or names(tmp_path / 'p') == []


def test_errors_are_drawn_in_the_colours_of_their_types(tmp_path):
    """One object found, one missed, one detection on background: their outlines and the counts below."""
    sample, one = photo(tmp_path, objects=2, seed=3)
    first, second = sample.objects(one)
    x, y, w, h = first['bbox']
    away = next(v for v in ([0, 0, 12, 12], [200, 150, 30, 30], [0, 150, 30, 30])
                if not any(_touch(v, thing['bbox']) for thing in (first, second)))
    found = [dict(image_id=0, category_id=first['category_id'], bbox=[x, y, w, h], score=0.9),
             dict(image_id=0, category_id=0, bbox=away, score=0.8)]
    errors = find_errors(sample.truth, found)
    assert errors.types == ['correct', 'background'] and errors.missed == {second['id']}
    picture = detections.mistakes(sample, one, ['it'], [found], [errors], 0.3, 256)
    colours = {colour for _, colour in picture.getcolors(picture.width * picture.height)}
    assert {_rgb(COLORS[kind]) for kind in ('correct', 'background', 'missed')} <= colours
    assert _rgb(COLORS['duplicate']) not in colours
    above = detections.mistakes(sample, one, ['it'], [found[:1]], [find_errors(sample.truth, found[:1])], 0.3, 256)
    assert _rgb(COLORS['background']) not in {c for _, c in above.getcolors(above.width * above.height)}


def _touch(one, other):
    return all(one[i] < other[i] + other[i + 2] + 10 and other[i] < one[i] + one[i + 2] + 10 for i in (0, 1))


def _rgb(colour):
    return tuple(int(colour[i:i + 2], 16) for i in (1, 3, 5))
