"""Pseudo-labels: fusion and thresholds on hand-computed numbers, files, resume, ignored regions that teach nothing."""
import json
import re

import cv2
import numpy as np
import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, run_tool, save_checkpoint, total
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict

from kd_det.cli import main as cli
from kd_det.cli import pseudo_label
from kd_det.errors import ConfigError, DataError
from kd_det.pseudo.folder import label_folder
from kd_det.pseudo.fusion import fuse
from kd_det.pseudo.labelling import Labeller, Teacher
from kd_det.pseudo.thresholds import ClassThreshold, choose, table


def detections(*rows):
    return (torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([float(row[1]) for row in rows]), torch.tensor([row[2] for row in rows], dtype=torch.long))


# -- fusion
# ----------------------------------------------------------------------------------------------------------------
def test_fused_box_by_hand():
    one, other = detections(([0, 0, 10, 10], 0.8, 0)), detections(([2, 0, 12, 10], 0.4, 0), ([50, 50, 60, 60], 0.6, 0))
    boxes, scores, labels = fuse([one, other], iou=0.5)
    assert boxes[0].tolist() == pytest.approx([2 * 0.4 / 1.2, 0, 10 + 2 * 0.4 / 1.2, 10], rel=1e-5)
    assert scores.tolist() == pytest.approx([0.6, 0.3])  # the mean of both; one detector of two saw the second
    assert labels.tolist() == [0, 0]


def test_weights_and_class_lists_in_the_fusion():
    one, other = detections(([0, 0, 10, 10], 0.8, 0)), detections(([0, 0, 10, 10], 0.4, 0), ([0, 0, 10, 10], 0.9, 1))
    _, scores, labels = fuse([one, other], weights=[3, 1], knows=[[0], [0, 1]])
    found = dict(zip(labels.tolist(), scores.tolist()))
    assert found == pytest.approx({0: (3 * 0.8 + 0.4) / 4, 1: 0.9})  # the first teacher does not know class 1
    assert fuse([detections(), detections()])[0].shape == (0, 4)


# -- thresholds
# ------------------------------------------------------------------------------------------------------------
def truth(*rows):
    return (torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([row[1] for row in rows], dtype=torch.long), torch.tensor([row[2] for row in rows]))


def test_thresholds_by_hand():
    a, b, c, crowd = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 60, 90, 90]
    found = [detections((a, 0.9, 0), (a, 0.85, 0), (b, 0.7, 0), (c, 0.5, 0), ([65, 65, 75, 75], 0.99, 0))]
    objects = [truth((a, 0, False), (b, 0, False), (c, 0, False), (crowd, 0, True))]
    # by falling score: right, wrong (a twice), right, right; the box in the crowd counts neither way
    precision = choose(['x'], found, objects, beta=0.1)[0]
    assert (precision.threshold, precision.precision, precision.kept) == (pytest.approx(0.9), 1.0, 1)
    recall = choose(['x'], found, objects, beta=1.0)[0]
    assert recall.threshold == pytest.approx(0.5) and recall.precision == pytest.approx(0.75) and recall.recall == 1
    assert precision.ignore == pytest.approx(0.5)  # 0.9 of what can be found needs all three
    assert 'x' in table([precision]) and '0.900' in table([precision])


def test_classes_that_cannot_be_judged_are_refused():
    with pytest.raises(DataError, match='no object'):
        choose(['x', 'y'], [detections(([0, 0, 9, 9], 0.9, 0))], [truth(([0, 0, 9, 9], 0, False))])
    given = choose(['x', 'y'], [detections(([0, 0, 9, 9], 0.9, 0))], [truth(([0, 0, 9, 9], 0, False))], otherwise=0.8)
    assert (given[0].threshold, given[1].threshold, given[1].ignore) == (pytest.approx(0.9), 0.8, 0.4)
    assert table(given).splitlines()[2].split() == ['y', '0.800', '0.400', '-', '-', '-']
    with pytest.raises(DataError, match='none of 1'):
        choose(['x'], [detections(([50, 50, 59, 59], 0.9, 0))], [truth(([0, 0, 9, 9], 0, False))])


# -- files
# -----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'images').mkdir()
    for i in range(4):
        cv2.imwrite(str(tmp_path / 'images' / f'{i}.png'), np.zeros((60, 80, 3), np.uint8))
    return tmp_path


class Fixed:
    """Says the same of every image, and which it was asked about; stops at one of them."""

    config, checkpoint, classes = 'c.py', 'c.pth', ('disc', 'square')

    def __init__(self, rows, stop=None, digest='d'):
        self.rows, self.stop, self.asked, self.digest = rows, stop, [], digest

    def __call__(self, path, image_id):
        if self.stop is not None and path.endswith(self.stop):
            raise KeyboardInterrupt
        self.asked.append(path)
        return detections(*self.rows)


ROWS = [([-5, 2, 20, 22], 0.9, 1), ([30, 30, 50, 40], 0.5, 0), ([1, 1, 9, 9], 0.1, 0)]
LIMITS = [ClassThreshold('disc', 0.6, None, None, 0, 0.3), ClassThreshold('square', 0.6, None, None, 0, 0.3)]


def test_objects_ignored_regions_and_what_made_them(folder):
    out = str(folder / 'pseudo.json')
    label_folder(Labeller([Fixed(ROWS)], ('disc', 'square')), str(folder / 'images'), out, LIMITS)
    coco = json.loads((folder / 'pseudo.json').read_text())
    notes = [note for note in coco['annotations'] if note['image_id'] == 1]
    assert [(n['bbox'], n['category_id'], n['iscrowd'], n['score']) for n in notes] == [
        ([0, 2, 20, 20], 2, 0, 0.9), ([30, 30, 20, 10], 1, 1, 0.5)]
    assert coco['info']['teachers'][0]['checkpoint'] == 'c.pth' and coco['info']['boxes'] == {'disc': 0, 'square': 4}
    assert coco['info']['thresholds'][0]['threshold'] == 0.6 and not (folder / 'pseudo.json.progress').exists()


def test_a_cut_run_goes_on_and_writes_the_same(folder):
    whole, cut = str(folder / 'whole.json'), str(folder / 'cut.json')
    label_folder(Labeller([Fixed(ROWS)], ('disc', 'square')), str(folder / 'images'), whole, LIMITS)
    with pytest.raises(KeyboardInterrupt):
        label_folder(Labeller([Fixed(ROWS, '2.png')], ('disc', 'square')), str(folder / 'images'), cut, LIMITS)
    with open(cut + '.progress', 'a') as file:
        file.write('{"file": "2.png", "wid')  # killed while it wrote
    again = Fixed(ROWS)
    label_folder(Labeller([again], ('disc', 'square')), str(folder / 'images'), cut, LIMITS)
    assert [path[-5:] for path in again.asked] == ['2.png', '3.png']
    assert (folder / 'whole.json').read_text() == (folder / 'cut.json').read_text()


def cut(folder):
    """A run that stopped after two images."""
    out = str(folder / 'cut.json')
    with pytest.raises(KeyboardInterrupt):
        label_folder(Labeller([Fixed(ROWS, '2.png')], ('disc', 'square')), str(folder / 'images'), out, LIMITS)
    return out


def test_images_may_come_and_go_while_a_run_is_cut_and_other_settings_are_refused(folder):
    out = cut(folder)
    (folder / 'images' / '0.png').unlink()
    cv2.imwrite(str(folder / 'images' / '9.png'), np.zeros((60, 80, 3), np.uint8))
    for other in (Labeller([Fixed(ROWS, digest='trained anew')], ('disc', 'square')),
                  Labeller([Fixed(ROWS)], ('disc', 'square'), iou=0.7)):
        with pytest.raises(DataError, match='is of a run with other teachers, thresholds or fusion'):
            label_folder(other, str(folder / 'images'), out, LIMITS)
    again = Fixed(ROWS)
    coco = label_folder(Labeller([again], ('disc', 'square')), str(folder / 'images'), out, LIMITS)
    assert [path[-5:] for path in again.asked] == ['2.png', '3.png', '9.png']
    assert [image['file_name'] for image in coco['images']] == ['1.png', '2.png', '3.png', '9.png']


def test_a_run_that_was_killed_at_its_very_beginning_begins_anew(folder):
    out = cut(folder)
    progress = folder / 'cut.json.progress'
    progress.write_text(progress.read_text()[:20])
    again = Fixed(ROWS)
    label_folder(Labeller([again], ('disc', 'square')), str(folder / 'images'), out, LIMITS)
    assert len(again.asked) == 4


def test_a_file_that_is_there_is_kept(folder):
    out = folder / 'pseudo.json'
    out.write_text('corrected by hand')
    labeller = Labeller([Fixed(ROWS)], ('disc', 'square'))
    with pytest.raises(DataError, match=r'--out: .* is there already'):
        label_folder(labeller, str(folder / 'images'), str(out), LIMITS)
    assert out.read_text() == 'corrected by hand'
    label_folder(labeller, str(folder / 'images'), str(out), LIMITS, overwrite=True)
    assert json.loads(out.read_text())['images']


@pytest.fixture
def said(tiny_coco, tmp_path, monkeypatch, capsys):
    """The command on the tiny data set, with a teacher that knows its training images; status, output, errors."""
    monkeypatch.setattr(pseudo_label, 'Teacher', lambda config, checkpoint, device: Fixed(ROWS))

    def run(*words, out='pseudo.json'):
        status = cli.main(['pseudo-label', '--teacher', 'c.py', 'c.pth', '--images', str(tiny_coco / 'images'), '--out',
                           str(tmp_path / out), *map(str, words)])
        found = capsys.readouterr()
        return status, found.out, found.err
    return run


def test_the_command_from_end_to_end(said, tiny_coco, tmp_path):
    val = tiny_coco / 'annotations' / 'val.json'
    status, out, err = said('--threshold', 0.6, '--names', val, '--sample', tmp_path / 'sample.png')
    assert status == 0 and '4/4 images, 4 boxes' in err and 'IgnoringAssigner' in out
    rows = [line.split() for line in out.splitlines()[:3]]
    assert rows[1] == ['disc', '0.600', '0.300', '-', '-', '-'] and rows[0][0] == 'class'
    coco = json.loads((tmp_path / 'pseudo.json').read_text())
    assert [image['file_name'] for image in coco['images']] == [f'val_{i}.png' for i in range(4)]
    assert cv2.imread(str(tmp_path / 'sample.png')).shape == (960, 960, 3)
    assert 'IgnoringAssigner' not in said('--threshold', 0.6, '--ignore-from', 1, out='other.json')[1]


def test_thresholds_from_the_command_line_and_from_a_labelled_set(said, tiny_coco, tmp_path, monkeypatch):
    """A class without an object there takes the number; what it needs is one of each of the others' boxes."""
    coco = json.loads((tiny_coco / 'annotations' / 'val.json').read_text())
    coco['annotations'] = [dict(id=i, image_id=i, category_id=2, iscrowd=0, bbox=[0, 2, 20, 20], area=400)
                           for i in range(4)]
    (tmp_path / 'val.json').write_text(json.dumps(coco))
    status, _, err = said('--val', tmp_path / 'val.json')
    assert status == 2 and "class 'disc' has no object in the validation set" in err and '--threshold' in err
    status, out, err = said('--val', tmp_path / 'val.json', '--threshold', 0.5)
    assert status == 0 and '4/4 images\n' in err
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ['disc', '0.500', '0.250', '-', '-', '-'], ['square', '0.900', '0.900', '1.000', '1.000', '4']]


@pytest.mark.parametrize('words, message', [
    ((), '--val FILE'), (('--threshold', 1.5), '--threshold: found 1.5'), (('--threshold', 0.5, '--iou', 2), '--iou'),
    (('--threshold', 0.5, '--weights', 1, 2), '--weights'), (('--threshold', 0.5, '--beta', 0), '--beta'),
    (('--threshold', 0.5, '--sample', 'picture'), "--sample: 'picture'"),
    (('--threshold', 0.5, '--sample', 'nowhere/p.png'), 'there is no folder'),
    (('--threshold', 0.5, '--names', 'nowhere.json'), '--names: .* no COCO file'),
    (('--val', 'nowhere.json'), '--val: .* no COCO file'),
    (('--threshold', 0.5, '--classes', 'disc'), "knows .* of which \\['square'\\] are not among")])
def test_what_cannot_be_meant_is_refused_before_labelling(said, tmp_path, words, message):
    status, _, err = said(*words)
    assert status == 2 and re.search(message, err) and err.count('\n') == 1
    assert not list(tmp_path.glob('pseudo.json*'))


def test_an_image_that_cannot_be_read_is_named(folder, run_config):
    model = build(faster_rcnn_cfg(), 3)
    teacher = Teacher(run_config(faster_rcnn_cfg()), save_checkpoint(model, folder / 't.pth'))
    (folder / 'images' / 'broken.png').write_bytes(b'no picture')
    for name in ('broken.png', 'gone.png'):
        with pytest.raises(DataError, match=f'{name} cannot be read as an image'):
            teacher(str(folder / 'images' / name), 0)


def test_zero_boxes_and_names_that_disagree_are_errors(folder):
    out = str(folder / 'pseudo.json')
    with pytest.raises(DataError, match='not one box'):
        label_folder(Labeller([Fixed(ROWS[2:])], ('disc', 'square')), str(folder / 'images'), out, LIMITS)
    with pytest.raises(DataError, match='names must agree'):
        Labeller([Fixed(ROWS)], ('disc', 'triangle'))
    with pytest.raises(DataError, match='no teacher knows'):
        Labeller([Fixed(ROWS)], ('disc', 'square', 'triangle'))


def test_a_real_teacher_labels_in_the_images_own_pixels(folder, run_config):
    model = build(faster_rcnn_cfg(test_cfg=dict(rcnn=dict(score_thr=0.0))), 3)
    path = save_checkpoint(model, folder / 't.pth')
    teacher = Teacher(run_config(faster_rcnn_cfg(test_cfg=dict(rcnn=dict(score_thr=0.0)))), path)
    boxes, scores, labels = teacher(str(folder / 'images' / '0.png'), 0)
    assert teacher.classes == ('disc', 'square') and len(boxes) == len(scores) == len(labels) > 0
    assert boxes[:, 0::2].max() <= 80 and boxes[:, 1::2].max() <= 60


# -- ignored regions in training
# -------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', ['two_stage', 'retinanet', 'atss', 'gfl', 'paa', 'tood', 'ddod', 'rtmdet'])
def test_ignored_regions_give_no_gradient(kind, late_epoch):
    """The whole image is one ignored region: what is in it is neither object nor background."""
    if kind == 'two_stage':
        cfg = faster_rcnn_cfg()
        for stage in (cfg.train_cfg.rpn, cfg.train_cfg.rcnn):
            stage.assigner = dict(type='IgnoringAssigner', assigner=stage.assigner)
    else:
        cfg = dense_cfg(kind)
        cfg.train_cfg.assigner = dict(type='IgnoringAssigner', assigner=cfg.train_cfg.assigner, points=kind == 'rtmdet')
    gradients = []
    for ignored in (False, True):
        model, batch = build(cfg.copy(), 1), make_batch(objects=(0, 0))
        for sample in batch['data_samples']:
            if ignored:
                sample.ignored_instances.bboxes = torch.tensor([[-5000., -5000., 5000., 5000.]])
                sample.ignored_instances.labels = torch.zeros(1, dtype=torch.long)
        losses = {name: value for name, value in losses_of(model, batch).items() if 'loss' in name}
        total(losses).backward()
        gradients.append(max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None))
    assert gradients[0] > 0 and gradients[1] == 0


@pytest.mark.parametrize('kind, why', [('fcos', 'FCOSHead has no assigner'), ('yolox', 'YOLOXHead takes every prior'),
                                       ('vfnet', 'VFNetHead takes every prior')])
def test_heads_that_do_not_ask_what_is_ignored_are_refused(kind, why, run_config, tmp_path):
    """There the band would be background: a region over the whole image leaves their gradient as it is."""
    cfg = dense_cfg(kind)
    own = (cfg.train_cfg or {}).get('assigner') or dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)
    ignoring = dict(type='IgnoringAssigner', points=kind != 'vfnet', assigner=own)
    cfg.train_cfg = ConfigDict(assigner=ignoring, allowed_border=-1, pos_weight=-1, debug=False)
    with pytest.raises(ConfigError, match=f'bbox_head.train_cfg: IgnoringAssigner, and {why}'):
        run_tool('train', run_config(cfg), '--work-dir', str(tmp_path / 'run'))
