"""Detections kept as a file: small, equal bytes for equal content, and still the evaluation that was made."""
import copy
import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_scenes import random_scene
from conftest import CLASSES, run_tool
from pycocotools.cocoeval import COCOeval
from tiny_runs import config, make_place, tiny_cfg, write_run

from kd_det.compare import detections as module
from kd_det.compare.detections import compact, file_hash, read_detections, write_detections
from kd_det.compare.evaluation import evaluate, exact_accuracy
from kd_det.compare.matching import load_truth, match, precisions
from kd_det.compare.student import deployed_model
from kd_det.errors import CompareError, StudyError
from kd_det.study.evaluating import read_evaluation


def test_the_best_hundred_of_each_image_are_kept_rounded():
    rng = np.random.default_rng(0)
    found = [dict(image_id=i, category_id=1, bbox=[1.23456, 2, 3.005, 4.0], score=float(s))
             for i in (7, 3) for s in rng.random(120)]
    kept = compact(found, 2, 4)
    assert [d['image_id'] for d in kept] == [3] * 100 + [7] * 100
    for i in (3, 7):
        scores = sorted((d['score'] for d in found if d['image_id'] == i), reverse=True)
        assert [d['score'] for d in kept if d['image_id'] == i] == [round(score, 4) for score in scores[:100]]
    assert kept[0]['bbox'][0] == 1.23 and json.dumps(kept[0]['bbox'][3]) == '4'


def test_a_file_is_coco_results_and_its_bytes_depend_on_the_content_alone(tmp_path):
    truth, one, _ = random_scene()
    sha = write_detections(str(tmp_path / 'a.json.gz'), one)
    assert sha == file_hash(str(tmp_path / 'a.json.gz')) == write_detections(str(tmp_path / 'b.json.gz'), one)
    assert sha == hashlib.sha256((tmp_path / 'b.json.gz').read_bytes()).hexdigest()
    kept = read_detections(str(tmp_path / 'a.json.gz'))
    assert json.loads(gzip.decompress((tmp_path / 'a.json.gz').read_bytes())) == kept
    evaluation = COCOeval(truth, truth.loadRes([dict(d) for d in kept]), 'bbox')
    evaluation.evaluate()                           # pycocotools takes it as it is
    exact = precisions(match(truth, one))
    np.testing.assert_allclose(precisions(match(truth, kept)), exact, atol=0.05)


def test_a_large_file_is_rounded_more(tmp_path, monkeypatch):
    _, one, _ = random_scene(images=40)
    path = str(tmp_path / 'a.json.gz')
    write_detections(path, one)
    size = os.path.getsize(path)
    monkeypatch.setattr(module, 'LIMIT', size)      # must be below
    write_detections(path, one)
    assert os.path.getsize(path) < size and read_detections(path) == compact(one, 1, 4)


def test_what_is_no_file_of_detections_is_refused(tmp_path):
    with pytest.raises(CompareError, match='no detections in'):
        read_detections(str(tmp_path / 'none.json.gz'))
    for content in (b'{}', b'[{"image_id": 1}]', b'\x1f\x8bcut'):
        (tmp_path / 'x.json.gz').write_bytes(content)
        with pytest.raises(CompareError, match=r'x\.json\.gz: no detections'):
            read_detections(str(tmp_path / 'x.json.gz'))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp('detections'))


def test_kept_detections_give_the_accuracy_that_mmdetection_measured(place):
    root, weights = place
    cfg = config(root)
    cfg.model.test_cfg.rcnn.score_thr = 0.0         # an untrained detector is sure of nothing
    cfg.val_dataloader.dataset.metainfo = dict(classes=CLASSES)
    found = evaluate(cfg, deployed_model(cfg), weights[8], 'val')
    assert found.detections and found.truth == f'{root}dev.json' and found.classes == list(CLASSES)
    assert Path(found.image_folder, '0.png').is_file()
    exact = exact_accuracy(found)
    assert exact.figures['AP'] > 0
    for name, value in found.accuracy.figures.items():
        assert (value is None) == (exact.figures[name] is None)
        assert value is None or exact.figures[name] == pytest.approx(value, abs=0.0501), name
    assert exact.per_class == pytest.approx(found.accuracy.per_class, abs=0.0501)


def test_a_detector_that_finds_nothing_has_an_ap_of_0(place):
    """MMDetection's metric gives no figures then; a comparison after too short a training must not fail of it."""
    root, weights = place
    cfg = copy.deepcopy(config(root))  # the tests share its parts
    cfg.model.test_cfg.rcnn.score_thr = 2.0
    found = evaluate(cfg, deployed_model(cfg), weights[8], 'val')
    assert found.detections == [] and found.accuracy.figures['AP'] == 0
    assert found.accuracy.per_class == dict.fromkeys(CLASSES, 0)


def test_the_tool_evaluates_both_networks_of_a_colad_run_and_leaves_the_run_alone(place, tmp_path):
    """Of a plain run one network; the files are refused when they do not belong together."""
    root, weights = place
    run = write_run(tmp_path / 'run', config(root), ap=.4, weights=weights[8])
    before = sorted(os.listdir(run))
    run_tool('benchmarks/detections', run, str(tmp_path / 'out'))
    assert sorted(os.listdir(run)) == before
    found = read_evaluation(str(tmp_path / 'out'))
    assert list(found) == ['first']
    truth = load_truth(f'{root}dev.json')
    again = precisions(match(truth, read_detections(found['first'].path)))[0, :, 0].mean()
    assert 100 * again == pytest.approx(found['first'].accuracy.figures['AP'], abs=0.5)
    write_detections(found['first'].path, [])
    with pytest.raises(StudyError, match='is not what'):
        read_evaluation(str(tmp_path / 'out'))

    both = tmp_path / 'both'
    colad = config(root, type='CoLAD', student_type='FasterRCNN', peer={'config': tiny_cfg(width=16)})
    write_run(both, colad, ap=.4, weights=weights[8])
    checkpoint = torch.load(both / 'epoch_2.pth', weights_only=False)
    torch.save({**checkpoint, 'kd_det': {'peer': weights[16]}}, both / 'epoch_2.pth')
    run_tool('benchmarks/detections', str(both), str(tmp_path / 'two'))
    assert list(read_evaluation(str(tmp_path / 'two'))) == ['first', 'second']
